#ifndef JOURNAL_RECORD_H
#define JOURNAL_RECORD_H

struct director_record;

/* The line that began at start is complete: appends its CRC and LF. */
void journal_line_end(string_t *str, size_t start);
/* Returns FALSE if the line (without LF) is damaged. len_r: without its CRC */
bool journal_line_check(const char *line, size_t *len_r);

/* Appends the record's line. */
void journal_record_append(string_t *str, const struct director_record *record);
/* Returns 1 if parsed, 0 if of an unknown type, -1 if damaged. Strings of the
   record are on the data stack. */
int journal_record_parse(const char *line, struct director_record *record_r);

#endif
