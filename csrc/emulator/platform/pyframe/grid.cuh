// Blocks that wait for each other: the twin of kernels/platform/pyframe/grid.cuh.
#pragma once

#include "pyframe/platform.cuh"

namespace pf {

#define grid_arrive(counter) grid_arrive_at(PF_SITE("grid_arrive"), counter)
#define grid_wait(counter, arrivals) grid_wait_at(PF_SITE("grid_wait"), counter, arrivals)

PF_OWN void grid_arrive_at(const char* site, unsigned* counter) { ::pf_emulator::count_arrival(counter, site); }
PF_OWN void grid_wait_at(const char* site, const unsigned* counter, unsigned arrivals) {
  ::pf_emulator::wait_for_arrivals(counter, arrivals, site);
}

}  // namespace pf
