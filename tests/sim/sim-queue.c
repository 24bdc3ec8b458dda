/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "sim-queue.h"

struct sim_queue {
	/* A binary heap */
	struct sim_event *events;
	unsigned int count, alloc;
	uint64_t last_seq;
};

struct sim_queue *sim_queue_init(void)
{
	struct sim_queue *queue = i_new(struct sim_queue, 1);

	queue->alloc = 256;
	queue->events = i_new(struct sim_event, queue->alloc);
	return queue;
}

void sim_queue_deinit(struct sim_queue **_queue)
{
	struct sim_queue *queue = *_queue;

	*_queue = NULL;
	i_free(queue->events);
	i_free(queue);
}

static bool
event_before(const struct sim_event *e1, const struct sim_event *e2)
{
	return e1->time != e2->time ? e1->time < e2->time : e1->seq < e2->seq;
}

void sim_queue_add(struct sim_queue *queue, uint64_t time,
		   sim_event_func_t *func, void *arg, uint64_t value)
{
	const struct sim_event event = {
		.time = time,
		.seq = ++queue->last_seq,
		.func = func,
		.arg = arg,
		.value = value,
	};
	unsigned int idx = queue->count, parent;

	if (queue->count == queue->alloc) {
		queue->events = i_realloc_type(queue->events, struct sim_event,
					       queue->alloc, queue->alloc * 2);
		queue->alloc *= 2;
	}
	queue->count++;
	while (idx > 0) {
		parent = (idx - 1) / 2;
		if (!event_before(&event, &queue->events[parent]))
			break;
		queue->events[idx] = queue->events[parent];
		idx = parent;
	}
	queue->events[idx] = event;
}

bool sim_queue_next(struct sim_queue *queue, uint64_t end,
		    struct sim_event *event_r)
{
	struct sim_event *events = queue->events, last;
	unsigned int idx = 0, child;

	if (queue->count == 0 || events[0].time > end)
		return FALSE;
	*event_r = events[0];
	last = events[--queue->count];
	while ((child = idx * 2 + 1) < queue->count) {
		if (child + 1 < queue->count &&
		    event_before(&events[child + 1], &events[child]))
			child++;
		if (!event_before(&events[child], &last))
			break;
		events[idx] = events[child];
		idx = child;
	}
	events[idx] = last;
	return TRUE;
}
