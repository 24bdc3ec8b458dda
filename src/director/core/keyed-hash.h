#ifndef KEYED_HASH_H
#define KEYED_HASH_H

/* Hashes two words: SipHash-1-3, its key made of one random word. Who doesn't
   know the key can't tell which words collide. For tables whose keys come from
   outside; not to be shown, stored or sent. */

static inline uint64_t keyed_hash_rotl(uint64_t x, unsigned int bits)
{
	return (x << bits) | (x >> (64 - bits));
}

static inline void keyed_hash_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = keyed_hash_rotl(v[1], 13) ^ v[0];
	v[0] = keyed_hash_rotl(v[0], 32);
	v[2] += v[3];
	v[3] = keyed_hash_rotl(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = keyed_hash_rotl(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = keyed_hash_rotl(v[1], 17) ^ v[2];
	v[2] = keyed_hash_rotl(v[2], 32);
}

static inline uint64_t keyed_hash(uint64_t key, uint64_t a, uint64_t b)
{
	const uint64_t words[] = { a, b, 16ULL << 56 };
	uint64_t v[4] = {
		key ^ 0x736f6d6570736575ULL, ~key ^ 0x646f72616e646f6dULL,
		key ^ 0x6c7967656e657261ULL, ~key ^ 0x7465646279746573ULL,
	};
	unsigned int i;

	for (i = 0; i < N_ELEMENTS(words); i++) {
		v[3] ^= words[i];
		keyed_hash_round(v);
		v[0] ^= words[i];
	}
	v[2] ^= 0xff;
	for (i = 0; i < 3; i++)
		keyed_hash_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
