#ifndef SIM_QUEUE_H
#define SIM_QUEUE_H

/* What will happen, in the order of virtual time; what happens at the same time
   happens in the order in which it was added. */

struct sim;
struct sim_queue;

typedef void sim_event_func_t(struct sim *sim, void *arg, uint64_t value);

struct sim_event {
	/* Microseconds */
	uint64_t time;
	uint64_t seq;
	sim_event_func_t *func;
	void *arg;
	uint64_t value;
};

struct sim_queue *sim_queue_init(void);
void sim_queue_deinit(struct sim_queue **queue);

void sim_queue_add(struct sim_queue *queue, uint64_t time,
		   sim_event_func_t *func, void *arg, uint64_t value);
/* Takes the next one out. FALSE if there is none up to end. */
bool sim_queue_next(struct sim_queue *queue, uint64_t end,
		    struct sim_event *event_r);

#endif
