#ifndef JOURNAL_H
#define JOURNAL_H

struct director_record;

/* A lone director's memory over a restart or crash: the backends, and the
   users who are not where hashing puts them (design.md).

   A text file of LF lines, appended to and now and then replaced as a whole:

	dovecot-director-journal TAB <major> TAB <minor> TAB <generation>
		TAB <CRC>
	<type> TAB <field>... TAB <CRC>

   generation: random, different for each start of a director, 16 hex digits.
   CRC: CRC-32 of all of the line before its TAB, 8 hex digits. The header has
   neither in version 1.0.

   Fields are TAB-escaped. Types: config, host, host-remove, host-flush, user,
   user-forget, process (enum director_record_type). Lines of unknown types are
   skipped. Times in the file are the machine's clock, those of processes count
   since it was started; the file's mtime says until when the process lived. */

#define JOURNAL_MAJOR_VERSION 1
#define JOURNAL_MINOR_VERSION 1
#define JOURNAL_FILE_NAME "journal"

struct journal;

typedef void journal_callback_t(void *context,
				const struct director_record *record);
/* Gives the records of the present to callback, a slice of them; *pos is 0 at
   first. Returns TRUE if there is more. See director_dump(). */
typedef bool journal_dump_t(uint32_t *pos, journal_callback_t *callback,
			    void *context);

/* Is the next process there already? Then the journal is for that one. */
typedef bool journal_superseded_t(void);

/* Waits up to lock_wait_secs for the process before us to release the journal.
   dir_fd: its folder; is taken over, closed by deinit. -1: nothing is kept,
   logged once. superseded: asked while waiting. Returns NULL if it says so. */
struct journal *journal_init(struct event *event, int dir_fd,
			     unsigned int lock_wait_secs,
			     journal_dump_t *dump,
			     journal_superseded_t *superseded);
/* Writes what is left and releases the lock. */
void journal_deinit(struct journal **journal);

/* Gives all that can be trusted to callback, in order; the rest is logged.
   alive_until_r: when the file was last known to be kept up, 0 if there is no
   file. Strings of a record live only during the call. */
void journal_read(struct journal *journal, journal_callback_t *callback,
		  void *context, time_t *alive_until_r);
/* That of the journal that was read; 0 if there was none, or it isn't known. */
uint64_t journal_read_generation(const struct journal *journal);
/* That of the journal that we keep; 0 if we don't (any more): after
   lock_wait_secs the next process goes on without the lock, and what we write
   later isn't for it. */
uint64_t journal_generation(struct journal *journal);
/* Replaces the file by what dump gives; all at once. After this records are
   accepted. */
void journal_start(struct journal *journal);

/* Adds to the buffer, which is written when it is large. */
void journal_record(struct journal *journal,
		    const struct director_record *record);
/* Writes the buffer. When the file has grown much, begins to replace it in
   slices from the ioloop. */
void journal_commit(struct journal *journal);

#endif
