#ifndef USERNAME_HASH_H
#define USERNAME_HASH_H

/* A user's 32-bit hash (spec: assignment.md §1). All directors of a ring and
   doveadm have to compute the same one. */

#define USERNAME_HASH_DEFAULT_FORMAT "%{user | lower}"

struct username_hash;

/* Compiles format (a director_username_hash value in 2.4 form). Returns NULL
   and error_r, which names what is wrong and what would be right, if it can't
   be parsed, uses a variable other than user, or uses none. 2.3 forms
   (%u, %Lu, %n, %Ln, %d, %Ld, %{username}, %{domain} ...) would be literal
   text in 2.4; the error spells out the 2.4 form. */
struct username_hash *
username_hash_init(const char *format, const char **error_r);
void username_hash_deinit(struct username_hash **hash);

/* Hashes user (whole name, not NULL; already cut at the master user separator,
   see username_hash_cut()). Returns 0 and a hash that is never 0, or -1 and
   error_r. The text hashed for "user" is the format with %{user} expanded. */
int username_hash_get(struct username_hash *hash, const char *user,
		      uint32_t *hash_r, const char **error_r);

/* Returns user up to the first occurrence of the first character of separator,
   on the data stack if it was cut. separator may be empty. */
const char *username_hash_cut(const char *user, const char *separator);

#endif
