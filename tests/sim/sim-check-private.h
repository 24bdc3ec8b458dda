#ifndef SIM_CHECK_PRIVATE_H
#define SIM_CHECK_PRIVATE_H

#include "sim-check.h"

/* director_user_kick_delay: a backend needs so long to finish. */
#define CHECK_KICK_DELAY SIM_KICK_DELAY
/* So long after a partition has healed, a director has come back, or users were
   forgotten, not all agree yet; and sim_round_time(). */
#define CHECK_GRACE SIM_SECS(5)

/* With a longer round trip nobody can be connected to in the 3 s that are given
   for connect() and for the greetings. */
#define CHECK_CONNECT_MAX SIM_MSECS(1500)
/* Directors connect in this time, and what the network needs. */
#define CHECK_CONNECT SIM_MSECS(2500)
/* connect() and ME this way, then that way */
#define CHECK_CONNECT_TRIPS 6
/* Who hangs for so long is given up by the others. */
#define CHECK_GIVE_UP SIM_SECS(3)
/* So long a director may take to tell another one of a login, and what the
   network needs. */
#define CHECK_TOLD SIM_MSECS(50)

struct check_user;

struct check_hold {
	const struct sim_node *node;
	const struct check_user *user;
	unsigned int incarnation;
	struct ip_addr ip;
	uint64_t since;
	/* UINT64_MAX: he is there */
	uint64_t ended;
	/* Its director died; 0 = it didn't */
	uint64_t director_died;
	/* When each director could hear of it last from its one; 0 = never,
	   or they are still together */
	uint64_t told[SIM_MAX_NODES];
	bool lmtp;
	/* Ended: he was there. */
	bool came;
	/* Nobody can know of it. */
	bool unseen;
	/* Its login process is stopped: it can't be kicked. */
	bool stopped;
	/* When it went on */
	uint64_t continued;
	/* He is, or was, on another backend too, with an excuse. */
	bool divergent;
	/* He was let in where his session is, which others don't know: it is
	   divergent, or he was forgotten. */
	bool follows;
};

struct check_user {
	/* Where an administrator moved him last; family 0: never */
	struct ip_addr moved_to;
	ARRAY(struct check_hold *) holds;
};

/* The last commands about a backend */
struct check_command {
	/* 0 = none */
	uint64_t time;
	unsigned int node;
	/* Not to be relied on: another director was told something about it at
	   about the same time, or the ring wasn't whole. */
	bool contested;
	/* -1 = not told */
	int vhosts, down;
};

struct sim_check {
	struct sim *sim;
	/* Why two directors have no contact; SIM_NO_EXCUSE: they have. And when
	   that was so last, for each reason. */
	enum sim_excuse apart[SIM_MAX_NODES][SIM_MAX_NODES];
	uint64_t apart_time[SIM_EXCUSES][SIM_MAX_NODES][SIM_MAX_NODES];
	/* They have had no contact since a partition. */
	bool parted[SIM_MAX_NODES][SIM_MAX_NODES];
	/* From when on they can tell each other something again; 0 = always */
	uint64_t together[SIM_MAX_NODES][SIM_MAX_NODES];
	uint64_t partial_time;
	/* When a director that the others had given up, being hung, went on:
	   a partition that heals */
	uint64_t revived_time;
	/* The last time when any two were parted */
	uint64_t parted_time;
	bool partial;
	unsigned int components[SIM_MAX_NODES];
	/* The present incarnation was started, stopped, continued */
	uint64_t started[SIM_MAX_NODES];
	uint64_t paused[SIM_MAX_NODES], continued[SIM_MAX_NODES];
	unsigned int incarnations[SIM_MAX_NODES];

	/* Users of these backends were forgotten if they came before. */
	uint64_t forgotten[SIM_MAX_BACKENDS];

	struct check_command commands[SIM_MAX_BACKENDS];
	/* "node.start origin's-start line": when it was sent first */
	HASH_TABLE(char *, uint64_t *) commands_sent;

	struct check_user users[SIM_MAX_USERS + SIM_MAX_PROBES][SIM_MAX_TAGS];
};

/* -- sim-check-world.c -- */

/* The last time when the two couldn't talk for this reason; 0 = never */
uint64_t check_apart_time(struct sim_check *check, enum sim_excuse why,
			  unsigned int i, unsigned int j);
uint64_t check_grace(const struct sim_check *check);
/* When could the other director hear of the hold from the hold's last? 0 =
   never */
uint64_t check_told_time(const struct sim_check *check,
			 const struct check_hold *hold, unsigned int node);

#endif
