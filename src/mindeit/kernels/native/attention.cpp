// Attention and its gradient.

#include "attention.h"

// Queries first..last of one head.
static void attend(const Attention& a, int64_t b, int64_t h, int64_t first, int64_t last, float* out) {
  const int64_t dim = a.heads * a.d;
  Scratch scratch(a.d * a.padded_n + 2 * a.n * a.padded_d + a.block * (a.padded_n + 2 * a.padded_d) + 128);
  float *keys = scratch.take(a.n * a.padded_d), *values = scratch.take(a.n * a.padded_d);
  float *scores = scratch.take(a.block * a.padded_n), *queries = scratch.take(a.block * a.padded_d);
  float* mixed = scratch.take(a.block * a.padded_d);
  a.gather(b, h, 1, 0, a.n, 1.f, keys);
  a.gather(b, h, 2, 0, a.n, 1.f, values);
  const Factor key_columns = a.columns(keys, scratch.take(a.d * a.padded_n));
  for (int64_t i = first; i < last; i += a.block) {
    const int64_t m = last - i < a.block ? last - i : a.block;
    a.gather(b, h, 0, i, m, a.scale, queries);
    product(a.amx, {queries, a.padded_d, false}, key_columns, scores, a.padded_n, m, a.n, a.d);
    softmax(scores, m, a.n);
    product(a.amx, {scores, a.padded_n, false}, {values, a.padded_d, false}, mixed, a.padded_d, m, a.d, a.n);
    a.scatter(mixed, m, 1.f, out + (b * a.n + i) * dim + h * a.d, dim, nullptr);
  }
}

void attend(Precision precision, const float* qkv, const float* bias, float* mixed, int64_t n, int64_t heads, int64_t d,
            int64_t first, int64_t last) {
  const Attention a(precision, qkv, bias, last / n + 1, n, heads, d);
  for (int64_t b = first / n; b * n < last; b++)
    for (int64_t h = 0; h < heads; h++)
      attend(a, b, h, b * n < first ? first - b * n : 0, (b + 1) * n < last ? n : last - b * n, mixed);
}

static int attend(const Attention& a, const Tensors& t) {
  if (!t.are({{a.batch, a.n, 3, a.heads, a.d}, {a.batch, a.n, a.heads * a.d}}) || !a.n) return MISSHAPEN;
  const int64_t blocks = (a.n + BLOCK - 1) / BLOCK, parts = a.batch * a.heads < 4 * omp_get_max_threads() ? blocks : 1;
#pragma omp parallel for collapse(3) schedule(dynamic)
  for (int64_t b = 0; b < a.batch; b++)
    for (int64_t h = 0; h < a.heads; h++)
      for (int64_t part = 0; part < parts; part++)
        attend(a, b, h, part * a.n / parts, (part + 1) * a.n / parts, t[1]);
  return DONE;
}

OPERATOR(attention) { return attend(Attention(t, FLOAT32), t); }
OPERATOR(bfloat16_attention) { return attend(Attention(t, BFLOAT16), t); }

// The probabilities are computed again. With P of them, G of the output and T = G V^T: dS = P (T - sum(P T)).
static void attend_grad(const Attention& a, const float* grad, float* dqkv, float* dtotal) {
  const int64_t dim = a.heads * a.d, size = a.n * a.padded_d, biases = 3 * dim;
  Scratch of_images(a.batch * biases);
  float* sums = of_images.take(a.batch * biases);  // of each image's own dqkv, for the bias
  memset(sums, 0, 4 * a.batch * biases);
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t b = 0; b < a.batch; b++)
    for (int64_t h = 0; h < a.heads; h++) {
      Scratch scratch(2 * a.d * a.padded_n + 4 * size + a.block * (2 * a.padded_n + 3 * a.padded_d) + 256);
      float *keys = scratch.take(size), *values = scratch.take(size);
      float *dkeys = scratch.take(size), *dvalues = scratch.take(size);
      float *shares = scratch.take(a.block * a.padded_n), *dscores = scratch.take(a.block * a.padded_n);
      float *queries = scratch.take(a.block * a.padded_d), *dout = scratch.take(a.block * a.padded_d);
      float *dqueries = scratch.take(a.block * a.padded_d), *dbias = sums + b * biases;
      a.gather(b, h, 1, 0, a.n, 1.f, keys);
      a.gather(b, h, 2, 0, a.n, 1.f, values);
      const Factor key_columns = a.columns(keys, scratch.take(a.d * a.padded_n));
      const Factor value_columns = a.columns(values, scratch.take(a.d * a.padded_n));
      memset(dkeys, 0, 4 * size);
      memset(dvalues, 0, 4 * size);
      for (int64_t i = 0; i < a.n; i += a.block) {
        const int64_t m = a.n - i < a.block ? a.n - i : a.block;
        a.gather(b, h, 0, i, m, a.scale, queries);
        a.gather(grad + (b * a.n + i) * dim + h * a.d, dim, nullptr, m, 1.f, dout);
        product(a.amx, {queries, a.padded_d, false}, key_columns, shares, a.padded_n, m, a.n, a.d);
        softmax(shares, m, a.n);
        product(a.amx, {dout, a.padded_d, false}, value_columns, dscores, a.padded_n, m, a.n, a.d);
        softmax_grad(shares, dscores, m, a.n);
        const Factor by_queries{dscores, a.padded_n, false}, by_keys{dscores, a.padded_n, true};
        product(a.amx, by_queries, {keys, a.padded_d, false}, dqueries, a.padded_d, m, a.d, a.n);
        a.scatter(dqueries, m, a.scale, dqkv + a.start(b, h, 0) + i * a.row, a.row, dbias + a.offset(h, 0));
        product<true>(a.amx, {shares, a.padded_n, true}, {dout, a.padded_d, false}, dvalues, a.padded_d, a.n, a.d,
                      m);
        product<true>(a.amx, by_keys, {queries, a.padded_d, false}, dkeys, a.padded_d, a.n, a.d, m);
      }
      a.scatter(dkeys, a.n, 1.f, dqkv + a.start(b, h, 1), a.row, dbias + a.offset(h, 1));
      a.scatter(dvalues, a.n, 1.f, dqkv + a.start(b, h, 2), a.row, dbias + a.offset(h, 2));
    }
  if (!dtotal) return;
  memset(dtotal, 0, 4 * biases);
  for (int64_t b = 0; b < a.batch; b++)
    for (int64_t k = 0; k < biases; k++) dtotal[k] += sums[b * biases + k];
}

void attend_grad(Precision precision, const float* qkv, const float* bias, const float* dmixed, float* dqkv,
                 float* dbias, int64_t images, int64_t n, int64_t heads, int64_t d) {
  attend_grad(Attention(precision, qkv, bias, images, n, heads, d), dmixed, dqkv, dbias);
}

static int attend_grad(const Attention& a, const Tensors& t) {
  if (!t.are({{a.batch, a.n, 3, a.heads, a.d}, {a.batch, a.n, a.heads * a.d}, {a.batch, a.n, 3, a.heads, a.d}}) || !a.n)
    return MISSHAPEN;
  attend_grad(a, t[1], t[2], nullptr);
  return DONE;
}

OPERATOR(attention_grad) { return attend_grad(Attention(t, FLOAT32), t); }
OPERATOR(bfloat16_attention_grad) { return attend_grad(Attention(t, BFLOAT16), t); }
