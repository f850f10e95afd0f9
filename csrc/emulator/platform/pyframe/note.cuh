// Notes to the host: the twin of kernels/platform/pyframe/note.cuh.
#pragma once

#include "memory.h"

namespace pf {

// Of several values the largest is kept, so that orders of threads agree.
PF_OWN void note_out_of_range(long long* notes, long long value, long long size) {
  if (!notes) return;
  ::pf_emulator::touch(notes, 3 * sizeof(long long), ::pf_emulator::Kind::atomic, "pf::note_out_of_range");
  if (notes[0] && notes[1] >= value) return;
  notes[0] = 1, notes[1] = value, notes[2] = size;
}

}  // namespace pf
