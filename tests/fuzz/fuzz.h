#ifndef FUZZ_H
#define FUZZ_H

/* What libFuzzer, or replay.c in its place, calls */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
