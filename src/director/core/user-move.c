/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

/* Who is being moved, and whether he is still somewhere here. */

#include "lib.h"
#include "keyed-hash.h"
#include "user-flush.h"
#include "user-move-private.h"

static unsigned int move_hash(const struct user_move *move)
{
	return move->key;
}

static int move_cmp(const struct user_move *m1, const struct user_move *m2)
{
	return m1->hash == m2->hash ? 0 : 1;
}

static int move_deadline_cmp(const void *p1, const void *p2)
{
	const struct user_move *m1 = p1, *m2 = p2;

	return m1->deadline_msecs < m2->deadline_msecs ? -1 :
		(m1->deadline_msecs > m2->deadline_msecs ? 1 : 0);
}

struct user_moves *user_moves_init(struct director *director)
{
	struct user_moves *moves = i_new(struct user_moves, 1);

	moves->last_number = RING_FIRST_SEQ(director->set.ring.started);
	moves->director = director;
	hash_table_create(&moves->table, default_pool, 0, move_hash, move_cmp);
	moves->queue = priorityq_init(move_deadline_cmp, 16);
	return moves;
}

static unsigned int move_key(const struct user_moves *moves, uint32_t hash)
{
	return keyed_hash(moves->director->set.hash_key, hash, 0);
}

struct user_move *
user_moves_of_hash(struct user_moves *moves, uint32_t hash)
{
	const struct user_move move = {
		.hash = hash,
		.key = move_key(moves, hash),
	}, *key = &move;

	return hash_table_lookup(moves->table, key);
}

struct user_move *
user_move_find(struct user_moves *moves, const char *tag, uint32_t hash)
{
	struct user_move *move = user_moves_of_hash(moves, hash);

	while (move != NULL && move->tag != tag)
		move = move->tag_next;
	return move;
}

static void move_link(struct user_moves *moves, struct user_move *move)
{
	struct user_move *first = user_moves_of_hash(moves, move->hash);
	const struct user_move *key = move;

	if (first == NULL)
		hash_table_insert(moves->table, key, move);
	else {
		move->tag_next = first->tag_next;
		first->tag_next = move;
	}
}

static void move_unlink(struct user_moves *moves, struct user_move *move)
{
	struct user_move *prev = user_moves_of_hash(moves, move->hash);
	const struct user_move *key = move;

	if (prev != move) {
		while (prev->tag_next != move)
			prev = prev->tag_next;
		prev->tag_next = move->tag_next;
		return;
	}
	hash_table_remove(moves->table, key);
	if (move->tag_next != NULL) {
		key = move->tag_next;
		hash_table_insert(moves->table, key, move->tag_next);
	}
}

void user_move_free(struct user_moves *moves, struct user_move *move)
{
	if (move->flush != NULL)
		user_flush_moved(move->flush, move->in_vain);
	move_unlink(moves, move);
	priorityq_remove(moves->queue, &move->item);
	i_free(move);
}

void user_moves_deinit(struct user_moves **_moves)
{
	struct user_moves *moves = *_moves;
	struct priorityq_item *item;

	*_moves = NULL;
	while ((item = priorityq_peek(moves->queue)) != NULL)
		user_move_free(moves, container_of(item, struct user_move,
						   item));
	priorityq_deinit(&moves->queue);
	hash_table_destroy(&moves->table);
	i_free(moves);
}

unsigned int director_users_moving(const struct director *director)
{
	return priorityq_count(director->moves->queue);
}

unsigned int director_users_kicking(const struct director *director)
{
	struct priorityq_item *const *items =
		priorityq_items(director->moves->queue);
	const struct user_move *move;
	unsigned int i, count = 0;

	for (i = 0; i < director_users_moving(director); i++) {
		move = container_of(items[i], struct user_move, item);
		if (!move->done)
			count++;
	}
	return count;
}

void user_move_set_deadline(struct user_moves *moves, struct user_move *move,
			    uint64_t msecs)
{
	if (move->deadline_msecs == msecs)
		return;
	priorityq_remove(moves->queue, &move->item);
	move->deadline_msecs = msecs;
	priorityq_add(moves->queue, &move->item);
}

/* To which he may have sessions */
static const struct ip_addr *move_spared(const struct user_move *move)
{
	return move->nowhere ? NULL : &move->target;
}

static const char *move_reason(const struct user_move *move)
{
	return move->nowhere ? "flushed from all backends" :
		t_strconcat("moved to ", net_ip2addr(&move->target), NULL);
}

static user_idx_t move_user(struct user_moves *moves,
			    const struct user_move *move)
{
	/* with time 0 nobody is expired */
	return user_table_lookup(moves->director->users, move->tag, move->hash,
				 0);
}

/* He belongs to the target from now on. */
static void
move_place(struct user_moves *moves, struct user_move *move,
	   const struct director_time *now)
{
	struct director *director = moves->director;
	struct user_table *users = director->users;
	struct backend *backend =
		backend_lookup(director->backends, &move->target);
	user_idx_t idx;

	if (backend == NULL || backend->tag != move->tag)
		return;
	idx = user_table_lookup(users, move->tag, move->hash, now->wall);
	if (idx == USER_IDX_NONE) {
		idx = director_user_add(director, move->tag, move->hash,
					backend->slot, now->wall, now);
		if (idx == USER_IDX_NONE)
			return;
	} else {
		user_table_set_timestamp(users, idx, now->wall);
		if (user_table_slot(users, idx) != backend->slot)
			user_table_set_slot(users, idx, backend->slot);
	}
	/* not recorded yet: until it ends, his sessions are where he was */
	user_table_set_flags(users, idx, USER_FLAG_MOVING, USER_FLAG_WEAK);
}

/* His entry went with the others of the backend. The journal may have him where he
   was before. */
static void
move_place_again(struct user_moves *moves, struct user_move *move,
		 const struct director_time *now)
{
	user_idx_t idx;

	move_place(moves, move, now);
	idx = move_user(moves, move);
	if (idx != USER_IDX_NONE) {
		user_table_set_flags(moves->director->users, idx,
				     USER_FLAG_JOURNALED, 0);
	}
}

void user_moves_number_from(struct user_moves *moves, uint32_t number)
{
	moves->last_number = I_MAX(moves->last_number, number);
}

/* -- Ends -- */

bool user_moves_is_stale(const struct user_moves *moves, const char *tag,
			 uint32_t hash, time_t timestamp,
			 const struct director_time *now)
{
	unsigned int i = hash % MOVE_MOVED_MEMORY;

	return moves->moved[i].tag == tag && moves->moved[i].hash == hash &&
		now->msecs < moves->moved[i].msecs + MOVE_STALE_MSECS &&
		timestamp < moves->moved[i].wall;
}

void user_move_end(struct user_moves *moves, struct user_move *move,
		   const struct director_time *now)
{
	user_idx_t idx = move_user(moves, move);
	unsigned int i = move->hash % MOVE_MOVED_MEMORY;

	moves->moved[i].tag = move->tag;
	moves->moved[i].hash = move->hash;
	moves->moved[i].started_msecs = move->started_msecs;
	moves->moved[i].msecs = now->msecs;
	moves->moved[i].wall = now->wall;
	if (idx == USER_IDX_NONE && !move->nowhere) {
		/* forgotten, because we have joined a ring meanwhile */
		move_place_again(moves, move, now);
		idx = move_user(moves, move);
	}
	if (idx == USER_IDX_NONE)
		;
	else if (move->nowhere && !move->in_vain)
		user_table_remove(moves->director->users, idx);
	else {
		/* (what wasn't seen is over, too) */
		user_table_set_flags(moves->director->users, idx, 0,
				     USER_FLAG_MOVING | USER_FLAG_UNSEEN |
				     USER_FLAG_CHANGED);
		if (director_has_sessions(moves->director, move->tag,
					  move->hash, move_spared(move))) {
			/* in vain, with directors of 2.3: ours wait here */
			user_table_set_flags(moves->director->users, idx,
					     USER_FLAG_CHANGED, 0);
		}
		/* everywhere the same */
		user_table_set_timestamp(moves->director->users, idx,
					 now->wall);
		director_user_placed(moves->director, idx);
	}
	user_move_free(moves, move);
	director_user_changed(moves->director);
}

void user_move_retarget(struct user_moves *moves, struct user_move *move,
			const struct ip_addr *target, bool nowhere,
			const struct director_time *now)
{
	struct move_wave *own;

	if (net_ip_compare(&move->target, target) &&
	    move->nowhere == nowhere)
		return;
	move->target = *target;
	move->nowhere = nowhere;
	move->done = FALSE;
	/* a hook that runs is for the other one */
	move->hook_runs = move->hook_done = FALSE;
	move->hook_id = 0;
	own = user_move_own_wave(moves, move);
	if (own != NULL) {
		own->arrived = FALSE;
		move->passed = FALSE;
	}
	move_place(moves, move, now);
	user_move_set_deadline(moves, move, now->msecs);
	(void)director_kick_sessions(moves->director, move->tag, move->hash,
		move_spared(move),
		t_strconcat(move_reason(move), " instead", NULL), now);
}

/* The new backend. If it was removed and there was no other one then, there may
   be one by now. NULL if there is none. (While we join, no backend is known for
   a moment, and then some.) */
static const struct backend *
move_backend(struct user_moves *moves, struct user_move *move,
	     const struct director_time *now)
{
	struct backends *backends = moves->director->backends;
	const struct backend *backend = backend_lookup(backends, &move->target);

	if (backend != NULL && backend->tag == move->tag)
		return backend;
	backend = !ring_is_handshaked(moves->director->ring) ? NULL :
		backend_by_hash(backends, move->tag, move->hash);
	if (backend != NULL)
		user_move_retarget(moves, move, &backend->ip, FALSE, now);
	return backend;
}

void user_moves_backend_removed(struct user_moves *moves,
				const struct ip_addr *ip,
				const struct director_time *now)
{
	unsigned int i, count = priorityq_count(moves->queue);
	struct user_move **list = i_new(struct user_move *, count + 1);
	struct priorityq_item *const *items = priorityq_items(moves->queue);
	struct backend *backend;

	/* their order changes meanwhile */
	for (i = 0; i < count; i++)
		list[i] = container_of(items[i], struct user_move, item);
	for (i = 0; i < count; i++) {
		if (!net_ip_compare(&list[i]->target, ip))
			continue;
		backend = backend_by_hash(moves->director->backends,
					  list[i]->tag, list[i]->hash);
		/* else it ends when it is looked at */
		if (backend != NULL) {
			user_move_retarget(moves, list[i], &backend->ip, FALSE,
					   now);
		}
	}
	i_free(list);
}

void user_moves_backend_flushed(struct user_moves *moves,
				const struct ip_addr *ip,
				const struct director_time *now)
{
	struct priorityq_item *const *items = priorityq_items(moves->queue);
	unsigned int i, count = priorityq_count(moves->queue);
	struct user_move *move;

	for (i = 0; i < count; i++) {
		move = container_of(items[i], struct user_move, item);
		if (net_ip_compare(&move->target, ip))
			move_place_again(moves, move, now);
	}
}

/* -- Begins -- */

/* Until when answers of before may become sessions, and his backend may need
   time */
static uint64_t
hold_until(struct director *director, user_idx_t idx,
	   const struct director_time *now)
{
	uint64_t msecs = director->set.user_kick_delay_msecs;
	/* what the director process before us answered isn't known */
	uint64_t unseen_until =
		director->started_msecs + USER_UNSEEN_SECS * 1000;
	uint64_t passed, until;
	time_t used;

	if (now->msecs >= unseen_until)
		unseen_until = 0;
	if (idx == USER_IDX_NONE)
		return unseen_until;
	if ((user_table_flags(director->users, idx) & USER_FLAG_UNSEEN) != 0)
		msecs = I_MAX(msecs, USER_UNSEEN_SECS * 1000);
	/* he was used at any time of that second */
	used = user_table_timestamp(director->users, idx);
	passed = used >= now->wall ? 0 : (now->wall - used - 1) * 1000ULL;
	/* (both times are cut to milliseconds) */
	until = passed >= msecs ? 0 : now->msecs + 1 + msecs - passed;
	return passed >= USER_UNSEEN_SECS * 1000 ? until :
		I_MAX(until, unseen_until);
}

struct user_move *
user_move_new(struct user_moves *moves, const struct backend *backend,
	      uint32_t hash, bool nowhere, const char *by,
	      const struct director_time *now)
{
	struct director *director = moves->director;
	struct user_move *move;
	struct backend *old;
	unsigned int held;
	user_idx_t idx;

	if (director_users_moving(director) >= USER_MOVES_MAX) {
		if (log_throttle(&moves->full_throttle, now->msecs, &held)) {
			DIRECTOR_LOG(director, LOG_TYPE_ERROR, t_strdup_printf(
				"%u users are being moved already: the move of "
				"user hash %u to %s has to wait%s",
				director_users_moving(director), hash,
				net_ip2addr(&backend->ip),
				log_throttle_more(held)));
		}
		return NULL;
	}

	move = i_new(struct user_move, 1);
	move->tag = backend->tag;
	move->hash = hash;
	move->key = move_key(moves, hash);
	move->target = backend->ip;
	move->nowhere = nowhere;
	move->started_msecs = now->msecs;
	move->deadline_msecs = now->msecs;
	idx = user_table_lookup(director->users, move->tag, hash, now->wall);
	move->hold_msecs = hold_until(director, idx, now);
	if (idx != USER_IDX_NONE) {
		old = backend_by_slot(director->backends,
				      user_table_slot(director->users, idx));
		move->from_ip = old->ip;
		if (old != backend) {
			director_untold_move(director, idx, now);
			move->old_ip = old->ip;
			move->old_down = old->down;
			move->old_vhosts = old->vhosts;
		}
	}
	move_link(moves, move);
	priorityq_add(moves->queue, &move->item);
	move_place(moves, move, now);
	(void)director_kick_sessions(director, move->tag, hash,
		move_spared(move),
		t_strconcat(move_reason(move), " by ", by, NULL), now);
	return move;
}

enum director_host_result
director_user_move(struct director *director, uint32_t hash,
		   const struct ip_addr *ip, const char *by,
		   const struct director_time *now)
{
	struct user_moves *moves = director->moves;
	struct backend *backend = backend_lookup(director->backends, ip);
	struct user_move *move;
	user_idx_t idx;

	if (backend == NULL)
		return DIRECTOR_HOST_NOTFOUND;
	if (user_move_find(moves, backend->tag, hash) != NULL)
		return DIRECTOR_HOST_BUSY;
	idx = user_table_lookup(director->users, backend->tag, hash, now->wall);
	if (idx != USER_IDX_NONE &&
	    user_table_slot(director->users, idx) != backend->slot &&
	    director_user_is_untold(director, idx, now))
		return DIRECTOR_HOST_UNSAFE;
	move = user_move_new(moves, backend, hash, FALSE, director_log_who(by),
			     now);
	if (move == NULL)
		return DIRECTOR_HOST_BUSY;
	DIRECTOR_LOG(director, LOG_TYPE_INFO, t_strdup_printf(
		"%sMoving user hash %u to %s", by, hash, net_ip2addr(ip)));
	user_move_begin(moves, move, now);
	return DIRECTOR_HOST_OK;
}

bool user_move_begin_for(struct user_moves *moves, struct user_flush *flush,
			 const struct backend *backend,
			 const struct backend *target, uint32_t hash,
			 const char *by, const struct director_time *now)
{
	struct user_move *move;

	if (user_move_find(moves, backend->tag, hash) != NULL)
		return FALSE;
	move = user_move_new(moves, target != NULL ? target : backend, hash,
			     target == NULL, director_log_who(by), now);
	if (move == NULL)
		return FALSE;
	move->flush = flush;
	user_move_begin(moves, move, now);
	return TRUE;
}

/* Until when his backend may need time. As the original does it, the kick delay
   comes at the end. Waiting here, too, would give those of 2.3 that still have a
   move of him time to forget it: they'd drop the wave. */
static uint64_t
move_held_until(const struct user_moves *moves, const struct user_move *move)
{
	uint64_t delay = moves->director->set.user_kick_delay_msecs + 1;

	if (move->waves_count > 0)
		return move->hold_msecs;
	return move->hold_msecs <= delay ? 0 : move->hold_msecs - delay;
}

/* Is he, or may he be, where he was, although there is nowhere to go? The
   original gives up some time. */
static bool
move_is_held(const struct user_moves *moves, const struct user_move *move,
	     const struct director_time *now)
{
	return (now->msecs < move->hold_msecs ||
		director_has_sessions(moves->director, move->tag, move->hash,
				      move_spared(move))) &&
		(move->waves_count > 0 ||
		 now->msecs < move->started_msecs + MOVE_TIMEOUT_MSECS);
}

static void
move_look(struct user_moves *moves, struct user_move *move,
	  const struct director_time *now)
{
	struct director *director = moves->director;
	uint64_t next;

	if (move_backend(moves, move, now) == NULL) {
		/* its users are forgotten; he may still be where he was */
		if (ring_is_handshaked(director->ring) &&
		    !move_is_held(moves, move, now))
			user_move_end(moves, move, now);
		else {
			user_move_set_deadline(moves, move,
					       now->msecs + MOVE_LOOK_MSECS);
		}
		return;
	}
	if (!move->done && now->msecs >= move_held_until(moves, move) &&
	    director_start_is_over(director, now))
		move->done = !director_has_sessions(director, move->tag,
						    move->hash,
						    move_spared(move));
	if (!user_move_run_waves(moves, move, now))
		return;
	next = now->msecs + MOVE_LOOK_MSECS;
	if (!move->done && move_held_until(moves, move) > now->msecs)
		next = I_MIN(next, move_held_until(moves, move));
	user_move_set_deadline(moves, move, next);
}

bool user_moves_run(struct user_moves *moves, const struct director_time *now,
		    unsigned int max_steps)
{
	struct priorityq_item *item;
	struct user_move *move;

	while ((item = priorityq_peek(moves->queue)) != NULL) {
		move = container_of(item, struct user_move, item);
		if (move->deadline_msecs > now->msecs)
			return FALSE;
		if (max_steps-- == 0)
			return TRUE;
		move_look(moves, move, now);
	}
	return FALSE;
}

uint64_t user_moves_next_deadline(const struct user_moves *moves)
{
	struct priorityq_item *item = priorityq_peek(moves->queue);
	const struct user_move *move;

	if (item == NULL)
		return 0;
	move = container_of(item, struct user_move, item);
	return move->deadline_msecs;
}

void user_moves_session_started(struct user_moves *moves, const char *tag,
				uint32_t hash, const struct ip_addr *ip,
				const struct director_time *now)
{
	struct user_move *move = user_move_find(moves, tag, hash);

	if (move == NULL || move->delaying ||
	    (!move->nowhere && net_ip_compare(ip, &move->target)))
		return;
	move->done = FALSE;
	move->hold_msecs = I_MAX(move->hold_msecs, now->msecs);
	(void)director_kick_sessions(moves->director, tag, hash,
		move_spared(move), t_strconcat("user is being ",
			move_reason(move), NULL), now);
}

bool user_moves_handed(struct user_moves *moves, const struct backend *backend,
		       uint32_t hash, const struct ring_address *by,
		       const struct director_time *now)
{
	struct user_move *move = user_move_find(moves, backend->tag, hash);

	if (move != NULL) {
		/* his entry went with all backends when we joined */
		move_place(moves, move, now);
		return TRUE;
	}
	move = user_move_new(moves, backend, hash, FALSE, director_who(by),
			     now);
	if (move == NULL)
		return FALSE;
	/* until its initiator tells of it */
	(void)user_move_heard(move, by, 0, now);
	return TRUE;
}

const struct backend *
user_moves_old_backend(struct user_moves *moves, const char *tag, uint32_t hash)
{
	const struct user_move *move = user_move_find(moves, tag, hash);

	return move == NULL || move->from_ip.family == 0 ? NULL :
		backend_lookup(moves->director->backends, &move->from_ip);
}

bool user_moves_place(struct user_moves *moves, const char *tag, uint32_t hash,
		      const struct director_time *now)
{
	struct user_move *move = user_move_find(moves, tag, hash);

	if (move != NULL && move_backend(moves, move, now) != NULL)
		move_place(moves, move, now);
	return move != NULL;
}

/* -- The flush hook (assignment.md §8) -- */

bool user_move_runs_hook(struct user_moves *moves, struct user_move *move)
{
	struct director *director = moves->director;
	struct director_flush_hook hook = {
		.hash = move->hash,
		.old_ip = move->old_ip,
		.new_ip = move->target,
		.old_down = move->old_down,
		.old_vhosts = move->old_vhosts,
	};

	if (move->hook_done || move->nowhere || move->old_ip.family == 0 ||
	    net_ip_compare(&move->old_ip, &move->target) ||
	    director->v.flush_hook == NULL)
		return FALSE;
	if (move->hook_runs)
		return TRUE;
	if (++moves->last_hook_id == 0)
		moves->last_hook_id++;
	move->hook_id = hook.id = moves->last_hook_id;
	move->hook_runs = director->v.flush_hook(director->context, &hook);
	move->hook_done = !move->hook_runs;
	return move->hook_runs;
}

void director_flush_hook_ended(struct director *director, uint32_t hash,
			       unsigned int id, const struct director_time *now)
{
	struct user_move *move = user_moves_of_hash(director->moves, hash);

	while (move != NULL && move->hook_id != id)
		move = move->tag_next;
	if (move == NULL || !move->hook_runs)
		return;
	move->hook_runs = FALSE;
	move->hook_done = TRUE;
	user_move_set_deadline(director->moves, move, now->msecs);
}

static void move_session_ended(struct user_moves *moves, struct user_move *move,
			       const struct ip_addr *ip,
			       const struct director_time *now)
{
	if (move->delaying ||
	    (!move->nowhere && net_ip_compare(ip, &move->target)))
		return;
	/* It may have been the end of this millisecond. */
	move->hold_msecs = I_MAX(move->hold_msecs, now->msecs + 1 +
		moves->director->set.user_kick_delay_msecs);
	move->done = FALSE;
	user_move_set_deadline(moves, move,
			       I_MIN(move->deadline_msecs,
				     move_held_until(moves, move)));
}

void user_moves_session_ended(struct user_moves *moves, const char *tag,
			      uint32_t hash, const struct ip_addr *ip,
			      const struct director_time *now)
{
	struct user_move *move = user_moves_of_hash(moves, hash);

	for (; move != NULL; move = move->tag_next) {
		if (tag == NULL || tag == move->tag)
			move_session_ended(moves, move, ip, now);
	}
}

