// Matrix products by AMX, which multiplies tiles of bfloat16 numbers and sums in float32.
//
// Both factors are rounded and packed into tiles first. Takes numbers below 1.2e-38 for zero.

#include "common.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__)

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

constexpr int64_t SIDE = 16;          // rows of a tile
constexpr int64_t DEPTH = 2 * SIDE;   // numbers in a row of a tile: pairs of them
constexpr int64_t LINES = 2 * SIDE;   // of a panel, which is two tiles wide
constexpr int64_t DEEPEST = 512;      // numbers of a line at a time: two panels stay in the first cache
constexpr int64_t CACHED = 1 << 18;   // bytes of packed rows at a time: they stay in the second

typedef int32_t Pairs __attribute__((vector_size(64)));  // of bfloat16 numbers: a row of a tile
typedef Pairs Tiles[2][SIDE];                            // side by side

bool amx_ready() {  // Linux gives the registers to a process that asks
  constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18;
  static const bool given = syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
  return given;
}

struct alignas(64) Configuration {  // as the processor reads it
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes_in_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE};
};

// ----------------------------------------------------------------------------------------------------------- packing

struct Lines {  // rows of the first factor, or columns of the second: that along which is summed
  const float* data;
  int64_t step;
  bool together;  // the numbers of a line lie together, and lines a step apart; else the other way round
  int64_t count, depth;
};

// 16 rows of 16 numbers, zeros where there are none.
INLINE void read(const float* from, int64_t step, int64_t height, int64_t width, Vector* rows) {
  if (height >= SIDE && width >= SIDE)
#pragma GCC unroll 16
    for (int64_t i = 0; i < SIDE; i++) rows[i] = load(from + i * step);
  else
    for (int64_t i = 0; i < SIDE; i++)
      rows[i] = i < height && width > 0 ? load(from + i * step, width < SIDE ? width : SIDE) : Vector{};
}

INLINE Pairs rounded(Vector first, Vector second) {  // one after the other
  return (Pairs)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
}

INLINE Pairs interleaved(Pairs halves) {
  alignas(64) int16_t order[2 * SIDE];
  for (int i = 0; i < 2 * SIDE; i++) order[i] = i / 2 + i % 2 * SIDE;
  return (Pairs)_mm512_permutexvar_epi16(*(__m512i*)order, (__m512i)halves);
}

// Of 16 x 16 pairs: those of rows STEP apart change places, so that after steps 1, 2, 4 and 8 rows are columns.
template <int STEP>
INLINE void exchange(Pairs* rows) {
  Pairs first, second;
  for (int j = 0; j < SIDE; j++) {
    first[j] = j & STEP ? SIDE + j - STEP : j;
    second[j] = j & STEP ? SIDE + j : j + STEP;
  }
#pragma GCC unroll 16
  for (int i = 0; i < SIDE; i++)
    if (!(i & STEP)) {
      const __m512i a = (__m512i)rows[i], b = (__m512i)rows[i + STEP];
      rows[i] = (Pairs)_mm512_permutex2var_epi32(a, (__m512i)first, b);
      rows[i + STEP] = (Pairs)_mm512_permutex2var_epi32(a, (__m512i)second, b);
    }
}

// 32 numbers of 16 lines. AMX wants the first factor line by line; of the second two numbers of all lines, then two
// more.
INLINE void pack_tile(const Lines& from, int64_t line, int64_t k, bool line_by_line, Pairs* tile) {
  const int64_t lines = from.count - line, deep = from.depth - k;
  Vector rows[DEPTH];
  if (from.together) {
    const float* data = from.data + line * from.step + k;
    read(data, from.step, lines, deep, rows);
    read(data + SIDE, from.step, lines, deep - SIDE, rows + SIDE);
  } else {
    const float* data = from.data + k * from.step + line;
    read(data, from.step, deep, lines, rows);
    read(data + SIDE * from.step, from.step, deep - SIDE, lines, rows + SIDE);
  }
  Pairs pairs[SIDE];
#pragma GCC unroll 16
  for (int64_t i = 0; i < SIDE; i++)
    pairs[i] = from.together ? rounded(rows[i], rows[i + SIDE]) : interleaved(rounded(rows[2 * i], rows[2 * i + 1]));
  if (from.together != line_by_line) {
    exchange<1>(pairs);
    exchange<2>(pairs);
    exchange<4>(pairs);
    exchange<8>(pairs);
  }
#pragma GCC unroll 16
  for (int64_t i = 0; i < SIDE; i++) tile[i] = pairs[i];
}

// Panels of 32 lines each, of so many tiles, in the order in which the numbers lie in memory.
static void pack(const Lines& from, int64_t line, int64_t panels, int64_t k, int64_t tiles, bool line_by_line,
                 Tiles* to) {
  const int64_t outer = from.together ? panels : tiles, inner = from.together ? tiles : panels;
  for (int64_t i = 0; i < outer; i++)
    for (int64_t j = 0; j < inner; j++) {
      const int64_t panel = from.together ? i : j, tile = from.together ? j : i;
      for (int64_t half = 0; half < 2; half++)
        pack_tile(from, line + panel * LINES + half * SIDE, k + tile * DEPTH, line_by_line,
                  to[panel * tiles + tile][half]);
    }
}

// ---------------------------------------------------------------------------------------------------------- products

struct Start {  // what products are added to: zeros or a bias, the same for all rows, or what is there
  const float* data;
  int64_t row, column;
};

// Two panels -> 32 x 32 numbers.
static void multiply_panels(const Tiles* a, const Tiles* b, int64_t tiles, Start start, float* c, int64_t step) {
  for (int64_t i = 0; i < LINES; i++) {  // it takes longest to get these
    __builtin_prefetch(c + i * step, 1);
    __builtin_prefetch(c + i * step + SIDE, 1);
  }
  const float* below = start.data + SIDE * start.row;
  _tile_loadd(0, start.data, 4 * start.row);
  _tile_loadd(1, start.data + SIDE * start.column, 4 * start.row);
  _tile_loadd(2, below, 4 * start.row);
  _tile_loadd(3, below + SIDE * start.column, 4 * start.row);
  for (int64_t i = 0; i < tiles; i++, a++, b++) {
    _tile_loadd(4, (*a)[0], 64);
    _tile_loadd(5, (*a)[1], 64);
    _tile_loadd(6, (*b)[0], 64);
    _tile_loadd(7, (*b)[1], 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, 4 * step);
  _tile_stored(1, c + SIDE, 4 * step);
  _tile_stored(2, c + SIDE * step, 4 * step);
  _tile_stored(3, c + SIDE * step + SIDE, 4 * step);
}

static const float zeros[SIDE] = {};

// The same where the result has fewer rows or columns.
static void multiply_edge(const Tiles* a, const Tiles* b, int64_t tiles, Start start, float* c, int64_t step,
                          int64_t height, int64_t width) {
  alignas(64) float whole[LINES * LINES];
  multiply_panels(a, b, tiles, {zeros, 0, 0}, whole, LINES);
  for (int64_t i = 0; i < height; i++)
    along(width, [&](int64_t j, int64_t count) {
      const Vector before = load(start.data + i * start.row + j * start.column, count);
      store(c + i * step + j, before + load(whole + i * LINES + j), count);
    });
}

static void multiply(const Lines& a, const Lines& b, Start start, float* c, int64_t step) {
  const int64_t m = a.count, n = b.count, k = a.depth ? a.depth : 1, turns = (k + DEEPEST - 1) / DEEPEST;
  const int64_t tiles = ((k + turns - 1) / turns + DEPTH - 1) / DEPTH, deep = tiles * DEPTH;  // of a panel
  const int64_t columns = (n + LINES - 1) / LINES, rows = (m + LINES - 1) / LINES;           // panels
  const int64_t most = CACHED / (tiles * sizeof(Tiles)) + 1, at_once = most < rows ? most : rows;
  Scratch scratch((columns + at_once) * tiles * sizeof(Tiles) / 4);
  Tiles* second = (Tiles*)scratch.take(columns * tiles * sizeof(Tiles) / 4);
  Tiles* first = (Tiles*)scratch.take(at_once * tiles * sizeof(Tiles) / 4);
  for (int64_t from = 0; from < k; from += deep, start = {c, step, 1}) {
    pack(b, 0, columns, from, tiles, false, second);
    for (int64_t begin = 0; begin < rows; begin += at_once) {
      const int64_t end = begin + at_once < rows ? begin + at_once : rows;
      pack(a, begin * LINES, end - begin, from, tiles, true, first);
      for (int64_t group = 0; group < columns; group += most)
        for (int64_t i = begin; i < end; i++)
          for (int64_t j = group; j < columns && j < group + most; j++) {
            const int64_t y = i * LINES, x = j * LINES, height = m - y, width = n - x;
            const Start here{start.data + y * start.row + x * start.column, start.row, start.column};
            const Tiles *left = first + (i - begin) * tiles, *right = second + j * tiles;
            float* to = c + y * step + x;
            if (height >= LINES && width >= LINES)
              multiply_panels(left, right, tiles, here, to, step);
            else
              multiply_edge(left, right, tiles, here, to, step, height < LINES ? height : LINES,
                            width < LINES ? width : LINES);
          }
    }
  }
}

void amx_multiply(Factor a, Factor b, const float* bias, bool add, float* c, int64_t step, int64_t m, int64_t n,
                  int64_t k) {
  static const Configuration configuration;
  _tile_loadconfig(&configuration);
  multiply({a.data, a.step, !a.transposed, m, k}, {b.data, b.step, b.transposed, n, k},
           add ? Start{c, step, 1} : bias ? Start{bias, 0, 1} : Start{zeros, 0, 0}, c, step);
  _tile_release();
}

#else

bool amx_ready() { return false; }
void amx_multiply(Factor, Factor, const float*, bool, float*, int64_t, int64_t, int64_t, int64_t) {}

#endif
