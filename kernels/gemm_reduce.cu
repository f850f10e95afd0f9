// Adds up the parts of tiles that several blocks have, in their order, and finishes the result.
#include "pyframe/gemm.cuh"

template <class T, int M, int N>
__global__ void __launch_bounds__(256)
    gemm_reduce(const pf::compute_t<T>* __restrict__ partial, int m, int n, int inner, unsigned steps,
                unsigned per_unit, unsigned vector, T* __restrict__ out, const T* __restrict__ c, long long outer_c,
                long long inner_c, long long row_c, long long column_c, pf::compute_t<T> alpha,
                pf::compute_t<T> beta) {
  constexpr int V = sizeof(pf::compute_t<T>) == 8 ? 2 : 4;
  const pf::Scaled<T> epilogue{
      out, (vector & 4) != 0, {c, outer_c, inner_c, row_c, column_c, (vector & 8) != 0}, alpha, beta};
  pf::reduce_tile<M, N, V>(partial, m, n, inner, steps, per_unit, epilogue);
}
