// alpha · (a · b) + beta · c on tensor cores: float16, bfloat16, and float32 rounded to tf32.
#include "pyframe/gemm_mma.cuh"

template <class T, int M, int N, int WARPS_M, int WARPS_N, int STAGES, bool A_K_INNER, bool B_K_INNER>
__global__ void __launch_bounds__(WARPS_M* WARPS_N * 32, WARPS_M * WARPS_N > 4 ? 1 : 2)
    gemm_mma(const T* __restrict__ a, const T* __restrict__ b, float* __restrict__ partial, int m, int n, int k,
             int inner, long long line_a, long long outer_a, long long inner_a, long long line_b, long long outer_b,
             long long inner_b, unsigned tiles, unsigned steps, unsigned per_unit, unsigned vector,
             T* __restrict__ out, const T* __restrict__ c, long long outer_c, long long inner_c, long long row_c,
             long long column_c, pf::compute_t<T> alpha, pf::compute_t<T> beta) {
  const pf::GemmWork work{m,      n,       k,       inner, line_a, outer_a,  inner_a, line_b,
                          outer_b, inner_b, tiles, steps, per_unit, vector};
  const pf::Scaled<T> epilogue{
      out, (vector & 4) != 0, {c, outer_c, inner_c, row_c, column_c, (vector & 8) != 0}, alpha, beta};
  pf::gemm_mma<pf::MmaGemm<T, M, N, WARPS_M, WARPS_N, STAGES, A_K_INNER, B_K_INNER>>(a, b, partial, work, epilogue);
}
