// Products in bfloat16: floats are rounded and multiplied; products are summed in float32. By oneDNN's plain C function,
// of matrices row by row: which one, Python says (bfloat16.py).

#include "common.h"

typedef uint16_t Bfloat16;
typedef int Gemm(char, char, int64_t m, int64_t n, int64_t k, float, const Bfloat16*, int64_t, const Bfloat16*, int64_t,
                 float, float*, int64_t);
static Gemm* gemm;
extern "C" void use_gemm(Gemm* function) { gemm = function; }

constexpr int NO_PRODUCT = 2;
constexpr int64_t LEAST_ROWS = 16;  // of a thread

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

struct Factor {
  const Bfloat16* data;
  int64_t step;  // from row to row, as it is stored
  char form;     // 'T': it is stored as its transpose
};

// c (m, n) = a (m, k) b (k, n). Each thread takes some rows of c.
static int multiply(Factor a, Factor b, float* c, int64_t m, int64_t n, int64_t k) {
  if (!gemm) return NO_PRODUCT;
  if (!m || !n) return DONE;
  const int64_t most = m / LEAST_ROWS + 1, threads = omp_get_max_threads(), parts = most < threads ? most : threads;
  int failed = 0;
#pragma omp parallel for schedule(static, 1) reduction(| : failed)
  for (int64_t part = 0; part < parts; part++) {
    const int64_t first = m * part / parts, rows = m * (part + 1) / parts - first;
    const Bfloat16* start = a.data + first * (a.form == 'T' ? 1 : a.step);
    failed |= gemm(a.form, b.form, rows, n, k, 1.f, start, a.step, b.data, b.step, 0.f, c + first * n, n);
  }
  return failed ? NO_PRODUCT : DONE;
}

OPERATOR(bfloat16_product) {
  const int64_t n = t.size(0, 0), in = t.size(0, 1), out = t.size(1, 0);
  if (!t.are({{n, in}, {out, in}, {n, out}})) return MISSHAPEN;
  Scratch scratch((n + out) * in / 2 + 64);
  const Bfloat16* x = rounded(t[0], n * in, scratch.halves(n * in));
  const Bfloat16* w = rounded(t[1], out * in, scratch.halves(out * in));
  return multiply({x, in, 'N'}, {w, in, 'T'}, t[2], n, out, in);
}

OPERATOR(bfloat16_product_grad) {
  const int64_t n = t.size(0, 0), in = t.size(0, 1), out = t.size(1, 0);
  if (!t.are({{n, in}, {out, in}, {n, out}, {n, in}, {out, in}})) return MISSHAPEN;
  Scratch scratch((n * in + out * in + n * out) / 2 + 96);
  const Bfloat16* x = rounded(t[0], n * in, scratch.halves(n * in));
  const Bfloat16* w = rounded(t[1], out * in, scratch.halves(out * in));
  const Bfloat16* dy = rounded(t[2], n * out, scratch.halves(n * out));
  const int ended = multiply({dy, out, 'N'}, {w, in, 'N'}, t[3], n, in, out);
  return ended ? ended : multiply({dy, out, 'T'}, {x, in, 'N'}, t[4], out, in, n);
}
