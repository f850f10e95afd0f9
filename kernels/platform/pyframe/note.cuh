// Notes to the host: what only values show to be wrong. See pyframe/backend/device_errors.py.
#pragma once

namespace pf {

// Notes that `value` is outside of what `size` allows. The words are in memory of the host, where the device can do no
// atomics; of several threads any one wins, word by word. No kernel is slower for it: only wrong values come here.
__device__ __forceinline__ void note_out_of_range(long long* notes, long long value, long long size) {
  if (!notes) return;
  volatile long long* const words = notes;
  words[1] = value;
  words[2] = size;
  __threadfence_system();  // the host may look in between
  words[0] = 1;
}

}  // namespace pf
