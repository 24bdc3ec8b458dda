#ifndef USER_SNAPSHOT_H
#define USER_SNAPSHOT_H

struct director;

/* All users, handed over from a director process that ends in good order to
   the one after it, so that a reload or restart forgets nobody. Unlike the
   journal it isn't kept up while the director runs: after a crash there is
   none, and hashing and the journal have to do. A binary file in the journal's
   folder, of this machine's byte order, gone as soon as it is read. It belongs
   to the journal that its writer kept: when another process has written one
   since, it is too old. */

#define USER_SNAPSHOT_FILE_NAME "users"

/* Writes the file as a whole; errors are logged. generation: of the journal
   that is kept; 0 if none is, then nothing is written. */
void user_snapshot_write(struct director *director, int dir_fd,
			 uint64_t generation, struct event *event);
/* Adds the file's users who aren't known yet, and removes the file. generation:
   of the journal that was read, or 0. Returns TRUE if it was there and could be
   trusted. */
bool user_snapshot_read(struct director *director, int dir_fd,
			uint64_t generation, struct event *event);

#endif
