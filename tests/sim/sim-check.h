#ifndef SIM_CHECK_H
#define SIM_CHECK_H

#include "sim.h"

/* What must hold, judged by what the world saw: who was let in where, which
   sessions live, which directors could reach each other. It doesn't ask the
   core, but for the state that all have to agree on at the end.

   A user is on a backend from the moment that a lookup was answered with it
   (for his login process, for LMTP) until his session has ended and the backend
   had CHECK_KICK_DELAY to finish. Letting him in to another backend meanwhile
   is a violation, unless one of enum sim_excuse explains it. */

struct check_hold;

struct sim_check *sim_check_init(struct sim *sim);
/* Directors came or went, links were cut or healed. */
void sim_check_world(struct sim_check *check);
/* A director's lookup was answered. */
struct check_hold *
sim_check_admitted(struct sim_check *check, const struct sim_node *node,
		   unsigned int user, unsigned int tag,
		   const struct ip_addr *ip, bool lmtp);
/* came: he was on the backend (or at least on his way to it). */
void sim_check_ended(struct sim_check *check, struct check_hold *hold,
		     bool came);
/* An administrator moves him. */
void sim_check_moved(struct sim_check *check, unsigned int user,
		     unsigned int tag, const struct ip_addr *ip);
/* His director knows of the session (again). */
void sim_check_told(struct check_hold *hold);
/* His director has started again, but the login process is stopped: it can't
   announce the session. */
void sim_check_unseen(struct check_hold *hold);
/* The login process is stopped, or goes on. */
void sim_check_stopped(struct sim_check *check, struct check_hold *hold,
		       bool stopped);
void sim_check_waited(struct sim_check *check, const struct sim_node *node,
		      uint64_t since, bool may_wait);
/* An administrator made the directors forget a backend's users (NULL: of
   all), or a director hears of it only now. */
void sim_check_forgotten(struct sim_check *check, const struct ip_addr *ip);
/* An administrator's PLAN_HOST was accepted. whole: the ring was in order. */
void sim_check_commanded(struct sim_check *check,
			 const struct sim_plan_item *item, bool whole);
/* Not everybody can reach everybody, or not long enough ago */
bool sim_check_is_partial(struct sim_check *check);
/* A director sends this to another one, whole lines. */
void sim_check_sent(struct sim_check *check, const struct sim_node *node,
		    const void *data, size_t size);
/* Called each second: nothing grows. */
void sim_check_bounds(struct sim_check *check);
/* Do all agree? If not, *what_r says on what not, *why_r how (on the data
   stack). */
bool sim_check_settled(struct sim_check *check, const char **what_r,
		       const char **why_r);

#endif
