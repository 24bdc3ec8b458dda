#ifndef DIRECTOR_LOGIN_PLUGIN_H
#define DIRECTOR_LOGIN_PLUGIN_H

extern const char *director_login_plugin_version;

void director_login_plugin_init(struct module *module);
void director_login_plugin_deinit(void);

#endif
