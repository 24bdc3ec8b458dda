/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "str.h"
#include "sim.h"

static const char *const type_names[PLAN_TYPES] = {
	"start", "login", "refresh", "kill", "pause", "cut", "cut-link",
	"latency", "clock", "host", "ring-add", "ring-remove", "reset", "stall",
	"move", "flush", "crash", "stop", "plugin",
};

static const char *const stop_names[] = { "process", "machine", "clean" };
static const char *const restore_names[] = { "nothing", "journal" };
static const char *const loss_names[] = { "nothing", "messages", "late" };
static const char *const host_names[] = {
	"up", "down", "vhosts", "add", "remove", "flush", "flush all"
};

static const char *secs(uint64_t usecs)
{
	return t_strdup_printf("%llu.%06llu",
			       (unsigned long long)usecs / 1000000,
			       (unsigned long long)usecs % 1000000);
}

static void login_str(string_t *str, const struct sim_plan_item *item)
{
	str_printfa(str, "user u%u", (unsigned int)SIM_LOGIN_USER(item->a));
	if (SIM_LOGIN_TAG(item->a) != 0)
		str_append(str, " tag b");
	if ((item->a & SIM_LOGIN_LMTP) != 0)
		str_append(str, " lmtp");
	else if ((item->a & SIM_LOGIN_DROPPED) != 0)
		str_append(str, " dropped");
	else
		str_printfa(str, " start +%s end +%s", secs(item->b),
			    secs(item->c));
}

static void nodes_str(string_t *str, const struct sim_plan *plan, uint64_t mask)
{
	unsigned int i;

	str_append(str, "side");
	for (i = 0; i < plan->nodes_count; i++) {
		if ((mask >> i & 1) != 0)
			str_printfa(str, " d%u", i);
	}
	str_append_c(str, ' ');
}

const char *sim_plan_item_str(const struct sim_plan *plan,
			      const struct sim_plan_item *item)
{
	static const char *const directions[] = { "", "out", "in", "both" };
	string_t *str = t_str_new(128);

	str_printfa(str, "%s d%u", type_names[item->type], item->node);
	if (item->node2 != SIM_NONE)
		str_printfa(str, " d%u", item->node2);
	str_append_c(str, ' ');
	switch (item->type) {
	case PLAN_LOGIN:
		login_str(str, item);
		break;
	case PLAN_MOVE:
		str_printfa(str, "user u%u to %s",
			    (unsigned int)SIM_LOGIN_USER(item->a),
			    plan->backends[item->b].name);
		break;
	case PLAN_REFRESH:
		str_printfa(str, "user u%u", (unsigned int)item->a);
		break;
	case PLAN_KILL:
		str_printfa(str, "%s for %s, then restore %s",
			    stop_names[item->b], item->a == 0 ? "ever" :
			    secs(item->a), restore_names[item->c]);
		break;
	case PLAN_PAUSE:
		str_printfa(str, "for %s", secs(item->a));
		break;
	case PLAN_CUT:
		nodes_str(str, plan, item->a);
		/* fall through */
	case PLAN_CUT_LINK:
		str_printfa(str, "%s for %s", directions[item->c],
			    secs(item->b));
		break;
	case PLAN_LATENCY:
		str_printfa(str, "%s for %s", secs(item->a), secs(item->b));
		break;
	case PLAN_CLOCK:
		str_printfa(str, "by %lld ms", (long long)item->a / 1000);
		break;
	case PLAN_HOST:
		str_printfa(str, "%s %s %u", host_names[item->a],
			    plan->backends[item->b].name,
			    (unsigned int)item->c);
		break;
	case PLAN_RING_REMOVE:
		str_printfa(str, "stopped after %s, back after %s",
			    secs(item->a), item->b == 0 ? "never" :
			    secs(item->b));
		break;
	case PLAN_RESET:
		str_printfa(str, "connection %u", (unsigned int)item->a);
		break;
	case PLAN_STALL:
		str_printfa(str, "connection %u for %s",
			    (unsigned int)item->a, secs(item->b));
		break;
	case PLAN_FLUSH:
		str_printfa(str, "%s, %u at once", item->b == SIM_NONE ? "all" :
			    plan->backends[item->b].name,
			    (unsigned int)item->c);
		break;
	case PLAN_PROCESS_CRASH:
		str_printfa(str, "login process %u", (unsigned int)item->a);
		break;
	case PLAN_PROCESS_STOP:
		str_printfa(str, "login process %u for %s",
			    (unsigned int)item->a, secs(item->b));
		break;
	case PLAN_PLUGIN_LOST:
		str_printfa(str, "of login process %u lost for %s (%s)",
			    (unsigned int)item->a, secs(item->b),
			    loss_names[item->c]);
		break;
	case PLAN_START:
	case PLAN_RING_ADD:
	case PLAN_TYPES:
		break;
	}
	return str_c(str);
}
