// alpha · (a · b) + beta · c in float32 and float64, without tensor cores.
#include "pyframe/gemm_simt.cuh"

template <class T, int M, int N, int ROWS, int COLUMNS, int STAGES>
__global__ void __launch_bounds__(M* N / ROWS / COLUMNS, pf::kSimtResident<T>)
    gemm_simt(const T* __restrict__ a, const T* __restrict__ b, T* __restrict__ partial, int m, int n, int k, int inner,
              long long line_a, long long outer_a, long long inner_a, long long line_b, long long outer_b,
              long long inner_b, unsigned tiles, unsigned steps, unsigned per_unit, unsigned vector, unsigned layout,
              T* __restrict__ out, const T* __restrict__ c, long long outer_c, long long inner_c, long long row_c,
              long long column_c, T alpha, T beta) {
  const pf::GemmWork work{m,      n,       k,       inner, line_a, outer_a,  inner_a, line_b,
                          outer_b, inner_b, tiles, steps, per_unit, vector};
  const pf::Scaled<T> epilogue{
      out, (vector & 4) != 0, {c, outer_c, inner_c, row_c, column_c, (vector & 8) != 0}, alpha, beta};
  pf::gemm_simt<pf::SimtGemm<T, M, N, ROWS, COLUMNS, STAGES>>(a, b, partial, work, layout, epilogue);
}
