// alpha · (a · b) + beta · c of float16 and bfloat16 on Hopper's tensor cores (sm_90a).
#include "pyframe/gemm_hopper.cuh"

template <class T, int N, int STAGES, bool A_K_INNER, bool B_K_INNER>
__global__ void __launch_bounds__(384, 1)
    gemm_hopper(const __grid_constant__ pf::tensor_map a, const __grid_constant__ pf::tensor_map b, int m, int n, int k,
                int inner, unsigned tiles, unsigned batched, unsigned vector, T* __restrict__ out,
                const T* __restrict__ c, long long outer_c, long long inner_c, long long row_c, long long column_c,
                float alpha, float beta) {
  const pf::HopperWork work{m, n, k, inner, tiles, batched};
  const pf::Scaled<T> epilogue{
      out, (vector & 4) != 0, {c, outer_c, inner_c, row_c, column_c, (vector & 8) != 0}, alpha, beta};
  pf::gemm_hopper<pf::HopperGemm<T, N, STAGES, A_K_INNER, B_K_INNER>>(a, b, work, epilogue);
}
