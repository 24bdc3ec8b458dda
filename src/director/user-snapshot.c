/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "lib.h"
#include "buffer.h"
#include "crc32.h"
#include "write-full.h"
#include "director-daemon.h"
#include "user-snapshot.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define SNAPSHOT_TMP_NAME USER_SNAPSHOT_FILE_NAME".tmp"
#define SNAPSHOT_MAGIC "director-users\n"
#define SNAPSHOT_VERSION 2
/* Also tells the byte order */
#define SNAPSHOT_ENDIAN 0x01020304

/* Records written or read at a time */
#define SNAPSHOT_CHUNK 8192

struct snapshot_header {
	char magic[16];
	uint32_t version, endian;
	/* Of everything behind the header */
	uint32_t crc;
	uint32_t backends_count;
	uint64_t users_count;
	/* Machine's clock, seconds since 1970 */
	int64_t created;
	/* Of the journal */
	uint64_t generation;
};

/* backends_count of these, then users_count of snapshot_user */
struct snapshot_backend {
	uint32_t family;
	unsigned char address[16];
};

struct snapshot_user {
	uint32_t hash;
	/* Seconds since last use, when the snapshot was created */
	uint32_t age;
	/* Place in the list of backends */
	uint32_t backend;
};

struct snapshot_writer {
	struct director *director;
	int fd;
	struct snapshot_header header;
	buffer_t *buf;
	/* slot -> place in the list of backends + 1 */
	uint16_t *slot_places;
	time_t now;
	bool failed;
};

static void writer_flush(struct snapshot_writer *writer)
{
	buffer_t *buf = writer->buf;

	if (!writer->failed &&
	    write_full(writer->fd, buf->data, buf->used) < 0)
		writer->failed = TRUE;
	writer->header.crc = crc32_data_more(writer->header.crc, buf->data,
					     buf->used);
	buffer_set_used_size(buf, 0);
}

static void writer_backends(struct snapshot_writer *writer)
{
	struct backend *const *backends;
	struct snapshot_backend record;
	unsigned int i, count;

	backends = backends_sorted(director_backends(writer->director), &count);
	for (i = 0; i < count; i++) {
		i_zero(&record);
		record.family = backends[i]->ip.family;
		if (IPADDR_IS_V4(&backends[i]->ip))
			memcpy(record.address, &backends[i]->ip.u.ip4, 4);
		else
			memcpy(record.address, &backends[i]->ip.u.ip6, 16);
		buffer_append(writer->buf, &record, sizeof(record));
		writer->slot_places[backends[i]->slot] = i + 1;
	}
	writer->header.backends_count = count;
}

static bool writer_user(user_idx_t idx, void *context)
{
	struct snapshot_writer *writer = context;
	struct user_table *users = director_users(writer->director);
	uint16_t place = writer->slot_places[user_table_slot(users, idx)];
	time_t timestamp = user_table_timestamp(users, idx);
	/* in use until now, or since then not */
	bool in_use = timestamp >= writer->now ||
		(user_table_flags(users, idx) & USER_FLAG_LEASED) != 0;
	const struct snapshot_user record = {
		.hash = user_table_hash(users, idx),
		.age = in_use ? 0 : writer->now - timestamp,
		.backend = place - 1,
	};

	/* (Who is being moved has his sessions where he was: the journal, or
	   hashing, says where.) */
	if (place == 0 ||
	    (user_table_flags(users, idx) & USER_FLAG_MOVING) != 0)
		return TRUE;
	buffer_append(writer->buf, &record, sizeof(record));
	writer->header.users_count++;
	if (writer->buf->used >= SNAPSHOT_CHUNK * sizeof(record))
		writer_flush(writer);
	return !writer->failed;
}

static int writer_run(struct snapshot_writer *writer)
{
	struct snapshot_header *header = &writer->header;
	uint32_t pos = 0;

	memcpy(header->magic, SNAPSHOT_MAGIC, sizeof(header->magic));
	header->version = SNAPSHOT_VERSION;
	header->endian = SNAPSHOT_ENDIAN;
	header->created = director_daemon_to_wall(writer->now);
	if (write_full(writer->fd, header, sizeof(*header)) < 0)
		return -1;
	writer_backends(writer);
	/* nobody is served any more: no need for slices */
	while (user_table_walk(director_users(writer->director), &pos,
			       writer->now, UINT_MAX, writer_user, writer) &&
	       !writer->failed) ;
	writer_flush(writer);
	if (writer->failed || lseek(writer->fd, 0, SEEK_SET) < 0 ||
	    write_full(writer->fd, header, sizeof(*header)) < 0)
		return -1;
	return 0;
}

void user_snapshot_write(struct director *director, int dir_fd,
			 uint64_t generation, struct event *event)
{
	struct snapshot_writer writer = {
		.director = director,
		.header.generation = generation,
		.now = director_daemon_now().wall,
	};

	if (generation == 0)
		return;
	writer.fd = openat(dir_fd, SNAPSHOT_TMP_NAME,
			   O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
	if (writer.fd == -1) {
		e_error(event, "open(%s) failed: %m", SNAPSHOT_TMP_NAME);
		return;
	}
	writer.buf = buffer_create_dynamic(default_pool,
		(SNAPSHOT_CHUNK + 1) * sizeof(struct snapshot_user));
	writer.slot_places = i_new(uint16_t, BACKEND_SLOT_MAX + 1);
	if (writer_run(&writer) < 0) {
		e_error(event, "write(%s) failed: %m", SNAPSHOT_TMP_NAME);
		(void)unlinkat(dir_fd, SNAPSHOT_TMP_NAME, 0);
	} else if (renameat(dir_fd, SNAPSHOT_TMP_NAME,
			    dir_fd, USER_SNAPSHOT_FILE_NAME) < 0) {
		e_error(event, "rename(%s) failed: %m", SNAPSHOT_TMP_NAME);
	}
	i_free(writer.slot_places);
	buffer_free(&writer.buf);
	i_close_fd(&writer.fd);
}

/* Where a snapshot_backend is now; NULL if it isn't any more. */
static struct backend *
reader_backend(struct director *director, const struct snapshot_backend *record)
{
	struct ip_addr ip;

	i_zero(&ip);
	ip.family = record->family;
	if (IPADDR_IS_V4(&ip))
		memcpy(&ip.u.ip4, record->address, 4);
	else if (IPADDR_IS_V6(&ip))
		memcpy(&ip.u.ip6, record->address, 16);
	else
		return NULL;
	return backend_lookup(director_backends(director), &ip);
}

static void
reader_run(struct director *director, const struct snapshot_header *header)
{
	const struct snapshot_backend *records =
		CONST_PTR_OFFSET(header, sizeof(*header));
	const struct snapshot_user *user =
		CONST_PTR_OFFSET(records, header->backends_count *
				 sizeof(*records));
	struct director_time now = director_daemon_now();
	time_t created = director_daemon_from_wall(header->created);
	struct backend **backends;
	uint64_t i;

	backends = i_new(struct backend *, I_MAX(header->backends_count, 1));
	for (i = 0; i < header->backends_count; i++)
		backends[i] = reader_backend(director, &records[i]);
	for (i = 0; i < header->users_count; i++, user++) {
		if (user->backend < header->backends_count &&
		    backends[user->backend] != NULL) {
			director_restore_user(director, user->hash,
					      backends[user->backend],
					      created - (time_t)user->age,
					      &now);
		}
	}
	i_free(backends);
}

static const char *
reader_check(const struct snapshot_header *header, size_t size,
	     uint64_t generation)
{
	uint64_t want;

	if (size < sizeof(*header) ||
	    memcmp(header->magic, SNAPSHOT_MAGIC, sizeof(header->magic)) != 0)
		return "not a snapshot of the director's users";
	if (header->version != SNAPSHOT_VERSION ||
	    header->endian != SNAPSHOT_ENDIAN)
		return "of another version or machine";
	if (header->users_count > UINT32_MAX)
		return "damaged";
	want = sizeof(*header) + header->users_count *
		sizeof(struct snapshot_user) +
		(uint64_t)header->backends_count *
		sizeof(struct snapshot_backend);
	if (size != want ||
	    crc32_data(CONST_PTR_OFFSET(header, sizeof(*header)),
		       size - sizeof(*header)) != header->crc)
		return "damaged";
	if (header->generation != generation)
		return "not of the last director process";
	return NULL;
}

bool user_snapshot_read(struct director *director, int dir_fd,
			uint64_t generation, struct event *event)
{
	const char *error;
	struct stat st;
	void *map;
	int fd;

	fd = openat(dir_fd, USER_SNAPSHOT_FILE_NAME, O_RDONLY | O_CLOEXEC);
	if (fd == -1) {
		if (errno != ENOENT)
			e_error(event, "open(%s) failed: %m",
				USER_SNAPSHOT_FILE_NAME);
		return FALSE;
	}
	(void)unlinkat(dir_fd, USER_SNAPSHOT_FILE_NAME, 0);
	if (fstat(fd, &st) < 0 || st.st_size == 0) {
		i_close_fd(&fd);
		return FALSE;
	}
	map = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	i_close_fd(&fd);
	if (map == MAP_FAILED) {
		e_error(event, "mmap(%s) failed: %m", USER_SNAPSHOT_FILE_NAME);
		return FALSE;
	}
	error = reader_check(map, st.st_size, generation);
	if (error == NULL)
		reader_run(director, map);
	else {
		e_error(event, "%s is %s: ignored, users who aren't logged in "
			"are forgotten", USER_SNAPSHOT_FILE_NAME, error);
	}
	if (munmap(map, st.st_size) < 0)
		i_panic("munmap() failed: %m");
	return error == NULL;
}
