// What Python calls.
#include "runtime.h"

extern "C" {

const char* pf_run(void (*invoke)(void**), void** arguments, const unsigned* grid, const unsigned* block,
                   std::size_t dynamic_shared, std::size_t most_shared, std::uint64_t seed, bool cooperative) {
  pf_emulator::Launch launch;
  launch.invoke = invoke, launch.arguments = arguments;
  launch.grid = {grid[0], grid[1], grid[2]};
  launch.block = {block[0], block[1], block[2]};
  launch.dynamic_shared = dynamic_shared, launch.most_shared = most_shared, launch.seed = seed;
  launch.cooperative = cooperative;
  return pf_emulator::run(launch);
}

void* pf_guarded_new(std::size_t bytes, std::size_t offset, std::size_t element) {
  return pf_emulator::guarded_new(bytes, offset, element);
}
const char* pf_guarded_intact(void* data) { return pf_emulator::guarded_intact(data); }
void pf_guarded_delete(void* data) { pf_emulator::guarded_delete(data); }
}
