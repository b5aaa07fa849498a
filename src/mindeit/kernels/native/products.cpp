// Matrix products by oneDNN's plain C functions, of matrices row by row. Which functions, Python says (onednn.py).
//
// Each thread takes some rows or some columns of the result. Where they end decides how sums are rounded, so the same
// number of threads gives the same bits.

#include "common.h"

typedef uint16_t Bfloat16;
template <class T>
using Gemm = int(char, char, int64_t m, int64_t n, int64_t k, float, const T*, int64_t, const T*, int64_t, float, float*,
                 int64_t);
static Gemm<float>* gemm;
static Gemm<Bfloat16>* bfloat16_gemm;
extern "C" void use_gemm(Gemm<float>* function) { gemm = function; }
extern "C" void use_bfloat16_gemm(Gemm<Bfloat16>* function) { bfloat16_gemm = function; }

constexpr int NO_PRODUCT = 2;
constexpr int64_t LEAST = 16;  // rows or columns of a thread

template <class T>
struct Factor {
  const T* data;
  int64_t step;  // from row to row, as it is stored
  char form;     // 'T': it is stored as its transpose

  const T* row(int64_t i) const { return data + i * (form == 'T' ? 1 : step); }
  const T* column(int64_t j) const { return data + j * (form == 'T' ? step : 1); }
};

// c (m, n) = a (m, k) b (k, n), or added to what c holds.
template <class T>
static int multiply(Gemm<T>* gemm, Factor<T> a, Factor<T> b, float* c, int64_t m, int64_t n, int64_t k,
                    bool add = false) {
  if (!gemm) return NO_PRODUCT;
  if (!m || !n) return DONE;
  const bool by_rows = m >= n;
  const int64_t longer = by_rows ? m : n, most = longer / LEAST + 1, threads = omp_get_max_threads();
  const int64_t parts = omp_in_parallel() || m * n * k < WORTH_THREADS ? 1 : most < threads ? most : threads;
  int failed = 0;
#pragma omp parallel for schedule(static, 1) reduction(| : failed) if (parts > 1)
  for (int64_t part = 0; part < parts; part++) {
    const int64_t first = longer * part / parts, size = longer * (part + 1) / parts - first;
    if (by_rows)
      failed |= gemm(a.form, b.form, size, n, k, 1.f, a.row(first), a.step, b.data, b.step, add, c + first * n, n);
    else
      failed |= gemm(a.form, b.form, m, size, k, 1.f, a.data, a.step, b.column(first), b.step, add, c + first, n);
  }
  return failed ? NO_PRODUCT : DONE;
}

// ----------------------------------------------------------------------------------------------------------- float32

int multiply(const float* x, const float* weight, const float* bias, float* y, int64_t n, int64_t in, int64_t out) {
  if (bias)
#pragma omp parallel for schedule(static) if (n * out > WORTH_THREADS)
    for (int64_t i = 0; i < n; i++) memcpy(y + i * out, bias, 4 * out);
  return multiply<float>(gemm, {x, in, 'N'}, {weight, in, 'T'}, y, n, out, in, bias);
}

OPERATOR(product) {
  const int64_t n = t.size(0, 0), in = t.size(0, 1), out = t.size(1, 0);
  if (!t.are({{n, in}, {out, in}, {n, out}})) return MISSHAPEN;
  return multiply(t[0], t[1], nullptr, t[2], n, in, out);
}

OPERATOR(product_bias) {
  const int64_t n = t.size(0, 0), in = t.size(0, 1), out = t.size(1, 0);
  if (!t.are({{n, in}, {out, in}, {out}, {n, out}})) return MISSHAPEN;
  return multiply(t[0], t[1], t[2], t[3], n, in, out);
}

int multiply_rows_grad(const float* dy, const float* weight, float* dx, int64_t n, int64_t in, int64_t out) {
  return multiply<float>(gemm, {dy, out, 'N'}, {weight, in, 'N'}, dx, n, in, out);
}

OPERATOR(product_rows_grad) {  // dy, weight
  const int64_t n = t.size(0, 0), out = t.size(0, 1), in = t.size(1, 1);
  if (!t.are({{n, out}, {out, in}, {n, in}})) return MISSHAPEN;
  return multiply_rows_grad(t[0], t[1], t[2], n, in, out);
}

int multiply_weight_grad(const float* dy, const float* x, float* dweight, int64_t n, int64_t in, int64_t out,
                         bool add) {
  return multiply<float>(gemm, {dy, out, 'T'}, {x, in, 'N'}, dweight, out, in, n, add);
}

OPERATOR(product_weight_grad) {  // dy, rows
  const int64_t n = t.size(0, 0), out = t.size(0, 1), in = t.size(1, 1);
  if (!t.are({{n, out}, {n, in}, {out, in}})) return MISSHAPEN;
  return multiply_weight_grad(t[0], t[1], t[2], n, in, out, false);
}

// ---------------------------------------------------------------------------------------------------------- bfloat16

// Floats are rounded to bfloat16 and multiplied; products are summed in float32.
static const Bfloat16* rounded(const float* from, int64_t count, Bfloat16* to) {
#pragma omp parallel for simd schedule(static) if (parallel : count > WORTH_THREADS)
  for (int64_t i = 0; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, from + i, 4);
    const uint32_t nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;  // half of them to even ones
    to[i] = (bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : nearest;  // a NaN stays one
  }
  return to;
}

OPERATOR(bfloat16_product) {
  const int64_t n = t.size(0, 0), in = t.size(0, 1), out = t.size(1, 0);
  if (!t.are({{n, in}, {out, in}, {n, out}})) return MISSHAPEN;
  Scratch scratch((n + out) * in / 2 + 64);
  const Bfloat16* x = rounded(t[0], n * in, scratch.halves(n * in));
  const Bfloat16* w = rounded(t[1], out * in, scratch.halves(out * in));
  return multiply<Bfloat16>(bfloat16_gemm, {x, in, 'N'}, {w, in, 'T'}, t[2], n, out, in);
}

OPERATOR(bfloat16_product_grad) {
  const int64_t n = t.size(0, 0), in = t.size(0, 1), out = t.size(1, 0);
  if (!t.are({{n, in}, {out, in}, {n, out}, {n, in}, {out, in}})) return MISSHAPEN;
  Scratch scratch((n * in + out * in + n * out) / 2 + 96);
  const Bfloat16* x = rounded(t[0], n * in, scratch.halves(n * in));
  const Bfloat16* w = rounded(t[1], out * in, scratch.halves(out * in));
  const Bfloat16* dy = rounded(t[2], n * out, scratch.halves(n * out));
  const int ended = multiply<Bfloat16>(bfloat16_gemm, {dy, out, 'N'}, {w, in, 'N'}, t[3], n, in, out);
  return ended ? ended : multiply<Bfloat16>(bfloat16_gemm, {dy, out, 'T'}, {x, in, 'N'}, t[4], out, in, n);
}
