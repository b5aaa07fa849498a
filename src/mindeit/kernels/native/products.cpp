// Products of matrices row by row: by oneDNN's plain C functions (which, Python says: onednn.py), in bfloat16 by AMX
// where the CPU has it.
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
extern "C" int uses_amx() { return amx_ready(); }

constexpr int NO_PRODUCT = 2;
constexpr int64_t LEAST = 16;  // rows or columns of a thread

// Rows of so many floats, a step apart, rounded to bfloat16: half of them to even ones.
static void round_to_bfloat16(const float* from, int64_t step, int64_t rows, int64_t width, Bfloat16* to) {
  for (int64_t i = 0; i < rows; i++)
#pragma omp simd
    for (int64_t j = 0; j < width; j++) {
      uint32_t bits;
      memcpy(&bits, from + i * step + j, 4);
      const uint32_t nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
      to[i * width + j] = (bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : nearest;  // a NaN stays one
    }
}

// c (m, n), whose rows are a step apart, = a (m, k) b (k, n), or added to what c holds.
static int multiply_by_onednn(Precision precision, Factor a, Factor b, bool add, float* c, int64_t step, int64_t m,
                              int64_t n, int64_t k) {
  const char a_form = a.transposed ? 'T' : 'N', b_form = b.transposed ? 'T' : 'N';
  if (precision == FLOAT32)
    return gemm ? gemm(a_form, b_form, m, n, k, 1.f, a.data, a.step, b.data, b.step, add, c, step) : NO_PRODUCT;
  if (!bfloat16_gemm) return NO_PRODUCT;
  Scratch scratch((m + n) * k / 2 + 64);
  Bfloat16 *first = (Bfloat16*)scratch.take((m * k + 1) / 2), *second = (Bfloat16*)scratch.take((n * k + 1) / 2);
  const int64_t a_width = a.transposed ? m : k, b_width = b.transposed ? k : n;
  round_to_bfloat16(a.data, a.step, a.transposed ? k : m, a_width, first);
  round_to_bfloat16(b.data, b.step, b.transposed ? n : k, b_width, second);
  return bfloat16_gemm(a_form, b_form, m, n, k, 1.f, first, a_width, second, b_width, add, c, step);
}

int multiply_here(Precision precision, Factor a, Factor b, const float* bias, bool add, float* c, int64_t step,
                  int64_t m, int64_t n, int64_t k) {
  if (precision == BFLOAT16 && amx_ready()) {
    amx_multiply(a, b, bias, add, c, step, m, n, k);
    return DONE;
  }
  for (int64_t i = 0; i < m && bias; i++) memcpy(c + i * step, bias, 4 * n);
  return multiply_by_onednn(precision, a, b, add || bias, c, step, m, n, k);
}

// The same, c (m, n), by all threads.
static int multiply(Precision precision, Factor a, Factor b, const float* bias, bool add, float* c, int64_t m,
                    int64_t n, int64_t k) {
  if (!m || !n) return DONE;
  const bool by_rows = m >= n;
  const int64_t longer = by_rows ? m : n, most = longer / LEAST + 1, threads = omp_get_max_threads();
  const int64_t parts = omp_in_parallel() || m * n * k < WORTH_THREADS ? 1 : most < threads ? most : threads;
  int failed = DONE;
#pragma omp parallel for schedule(static, 1) reduction(| : failed) if (parts > 1)
  for (int64_t part = 0; part < parts; part++) {
    const int64_t first = longer * part / parts, size = longer * (part + 1) / parts - first;
    if (by_rows)
      failed |= multiply_here(precision, {a.row(first), a.step, a.transposed}, b, bias, add, c + first * n, n, size, n,
                              k);
    else
      failed |= multiply_here(precision, a, {b.column(first), b.step, b.transposed}, bias ? bias + first : bias, add,
                              c + first, n, m, size, k);
  }
  return failed;
}

int multiply(Precision precision, const float* x, const float* weight, const float* bias, float* y, int64_t n,
             int64_t in, int64_t out) {
  return multiply(precision, {x, in, false}, {weight, in, true}, bias, false, y, n, out, in);
}

int multiply_rows_grad(Precision precision, const float* dy, const float* weight, float* dx, int64_t n, int64_t in,
                       int64_t out) {
  return multiply(precision, {dy, out, false}, {weight, in, false}, nullptr, false, dx, n, in, out);
}

int multiply_weight_grad(Precision precision, const float* dy, const float* x, float* dweight, int64_t n, int64_t in,
                         int64_t out, bool add) {
  return multiply(precision, {dy, out, true}, {x, in, false}, nullptr, add, dweight, out, in, n);
}

OPERATOR(product) {
  const int64_t n = t.size(0, 0), in = t.size(0, 1), out = t.size(1, 0);
  if (!t.are({{n, in}, {out, in}, {n, out}})) return MISSHAPEN;
  return multiply(FLOAT32, t[0], t[1], nullptr, t[2], n, in, out);
}

OPERATOR(product_bias) {
  const int64_t n = t.size(0, 0), in = t.size(0, 1), out = t.size(1, 0);
  if (!t.are({{n, in}, {out, in}, {out}, {n, out}})) return MISSHAPEN;
  return multiply(FLOAT32, t[0], t[1], t[2], t[3], n, in, out);
}

OPERATOR(product_rows_grad) {  // dy, weight
  const int64_t n = t.size(0, 0), out = t.size(0, 1), in = t.size(1, 1);
  if (!t.are({{n, out}, {out, in}, {n, in}})) return MISSHAPEN;
  return multiply_rows_grad(FLOAT32, t[0], t[1], t[2], n, in, out);
}

OPERATOR(product_weight_grad) {  // dy, rows
  const int64_t n = t.size(0, 0), out = t.size(0, 1), in = t.size(1, 1);
  if (!t.are({{n, out}, {n, in}, {out, in}})) return MISSHAPEN;
  return multiply_weight_grad(FLOAT32, t[0], t[1], t[2], n, in, out, false);
}

OPERATOR(bfloat16_product) {
  const int64_t n = t.size(0, 0), in = t.size(0, 1), out = t.size(1, 0);
  if (!t.are({{n, in}, {out, in}, {n, out}})) return MISSHAPEN;
  return multiply(BFLOAT16, t[0], t[1], nullptr, t[2], n, in, out);
}

OPERATOR(bfloat16_product_bias) {
  const int64_t n = t.size(0, 0), in = t.size(0, 1), out = t.size(1, 0);
  if (!t.are({{n, in}, {out, in}, {out}, {n, out}})) return MISSHAPEN;
  return multiply(BFLOAT16, t[0], t[1], t[2], t[3], n, in, out);
}

OPERATOR(bfloat16_product_grad) {
  const int64_t n = t.size(0, 0), in = t.size(0, 1), out = t.size(1, 0);
  if (!t.are({{n, in}, {out, in}, {n, out}, {n, in}, {out, in}})) return MISSHAPEN;
  const int ended = multiply_rows_grad(BFLOAT16, t[2], t[1], t[3], n, in, out);
  return ended ? ended : multiply_weight_grad(BFLOAT16, t[2], t[0], t[4], n, in, out, false);
}
