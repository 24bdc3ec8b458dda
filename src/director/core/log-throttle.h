#ifndef LOG_THROTTLE_H
#define LOG_THROTTLE_H

/* Lines that others can make us log as often as they like: one a second of each
   kind, the others are counted, and the count is logged. Times are monotonic
   milliseconds. All 0 at first. */

#define LOG_THROTTLE_MSECS 1000

struct log_throttle {
	/* No line before this */
	uint64_t next_msecs;
	/* Not logged since the last one */
	unsigned int held;
};

/* May a line be logged now? Then held_r others weren't since the last one, and
   are to be told with it (log_throttle_more()). Otherwise it is counted. */
bool log_throttle(struct log_throttle *throttle, uint64_t now_msecs,
		  unsigned int *held_r);
/* " (12 more like it)", on the data stack; "" if there are none. */
const char *log_throttle_more(unsigned int held);

/* If nothing else comes, those that were held are to be told at this time; 0 if
   there are none. */
uint64_t log_throttle_deadline(const struct log_throttle *throttle);
/* How many are to be told now, 0 if none are (yet). */
unsigned int log_throttle_rest(struct log_throttle *throttle,
			       uint64_t now_msecs);

#endif
