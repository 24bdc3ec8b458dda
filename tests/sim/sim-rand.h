#ifndef SIM_RAND_H
#define SIM_RAND_H

/* A generator of our own: the same numbers everywhere for the same seed */

struct sim_rand {
	uint64_t state;
};

static inline uint64_t sim_rand(struct sim_rand *rand)
{
	uint64_t x = (rand->state += 0x9e3779b97f4a7c15ULL);

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

/* 0 .. max-1 */
static inline uint64_t sim_rand_below(struct sim_rand *rand, uint64_t max)
{
	return max == 0 ? 0 : sim_rand(rand) % max;
}

/* min .. max */
static inline uint64_t
sim_rand_range(struct sim_rand *rand, uint64_t min, uint64_t max)
{
	return min + sim_rand_below(rand, max - min + 1);
}

/* As many small numbers as large ones: each doubling is as likely. */
static inline uint64_t
sim_rand_scale(struct sim_rand *rand, uint64_t min, uint64_t max)
{
	uint64_t top = min;
	unsigned int doublings = 0;

	while (top * 2 <= max) {
		top *= 2;
		doublings++;
	}
	top = min << sim_rand_below(rand, doublings + 1);
	return sim_rand_range(rand, top, top * 2 > max ? max : top * 2);
}

static inline bool sim_rand_percent(struct sim_rand *rand, unsigned int percent)
{
	return sim_rand_below(rand, 100) < percent;
}

#endif
