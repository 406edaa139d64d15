// Speed of the matrix products on the shapes of Qwen 2.5 1.5B and Gemma 3 270M, beside this
// machine's limits measured in the same run: sequential reads from huge pages, and a loop of int8
// dot instructions.
#include <sys/mman.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "base/threads.h"
#include "kernel/matmul.h"
#include "kernel/plane_head.h"
#include "kernel/targets.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace snug {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Median seconds of `repeats` calls.
double Median(int repeats, const std::function<void()>& f) {
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    const double start = Now();
    f();
    times.push_back(Now() - start);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// Zeroed memory on huge pages, never freed.
uint8_t* HugePages(size_t bytes) {
  const size_t unit = size_t{2} << 20;
  bytes = (bytes + 2 * unit - 1) / unit * unit;
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    std::perror("mmap");
    std::exit(1);
  }
  auto* aligned =
      reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(p) + unit - 1) / unit * unit);
  madvise(aligned, bytes - unit, MADV_HUGEPAGE);
  std::memset(aligned, 1, bytes - unit);
  return aligned;
}

double ReadBandwidth(ThreadPool& pool, const uint8_t* memory, size_t bytes) {
  const size_t part = size_t{1} << 20;
  std::vector<uint64_t> sums(bytes / part);
  const double s = Median(5, [&] {
    pool.For(bytes / part, [&](size_t task, int) {
      const auto* p = reinterpret_cast<const uint64_t*>(memory + task * part);
      uint64_t a[8] = {};
      for (size_t i = 0; i < part / 8; i += 8) {
        for (size_t k = 0; k < 8; ++k) a[k] += p[i + k];
      }
      for (const uint64_t v : a) sums[task] += v;
    });
  });
  return static_cast<double>(bytes / part * part) / s;
}

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512vnni"))) int DotLoop(size_t n) {
  __m512i acc[12], w = _mm512_set1_epi8(3), x = _mm512_set1_epi8(5);
  for (auto& a : acc) a = _mm512_setzero_si512();
  for (size_t i = 0; i < n; ++i) {
#pragma GCC unroll 12
    for (auto& a : acc) a = _mm512_dpbusd_epi32(a, w, x);
  }
  __m512i sum = acc[0];
  for (auto& a : acc) sum = _mm512_add_epi32(sum, a);
  return _mm_cvtsi128_si32(_mm512_castsi512_si128(sum));
}
#endif

// Int8 operations (a multiplication and an addition each count) per second; 0 where not measured.
double DotPeak(ThreadPool& pool) {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx512vnni")) return 0;
  const size_t n = 4000000, threads = static_cast<size_t>(pool.size());
  std::vector<int> sums(threads);
  const double s =
      Median(5, [&] { pool.For(threads, [&](size_t t, int) { sums[t] = DotLoop(n); }); });
  return static_cast<double>(n) * 12 * 128 * static_cast<double>(threads) / s;
#else
  (void)pool;
  return 0;
#endif
}

struct Shape {
  const char* model;
  DType type;
  uint32_t cols, rows;
};
constexpr Shape kShapes[] = {
    {"qwen gate", DType::kQ4_K, 1536, 8960},   {"qwen down", DType::kQ4_K, 8960, 1536},
    {"qwen down", DType::kQ6_K, 8960, 1536},   {"qwen o", DType::kQ4_K, 1536, 1536},
    {"gemma gate", DType::kQ5_0, 640, 2048},   {"gemma down", DType::kQ6_K, 2048, 640},
    {"gemma down", DType::kQ4_K, 2048, 640},   {"gemma q", DType::kQ5_0, 640, 1024},
    {"gemma o", DType::kQ4_K, 1024, 640},      {"gemma head", DType::kQ8_0, 640, 262144},
    {"qwen head", DType::kQ6_K, 1536, 151936},
};
// Beside those, every type in one shape, and packed.
constexpr DType kTypes[] = {
    DType::kQ2_K,   DType::kQ3_K,  DType::kQ4_K,  DType::kQ5_K,  DType::kQ6_K, DType::kIQ4_NL,
    DType::kIQ4_XS, DType::kMXFP4, DType::kTQ1_0, DType::kTQ2_0, DType::kQ8_0, DType::kQ5_1,
    DType::kQ5_0,   DType::kQ4_1,  DType::kQ4_0,  DType::kF16,   DType::kF32};

struct Limits {
  double read = 0, dot = 0;
};

void BenchShape(ThreadPool& pool, const Shape& shape, const std::vector<size_t>& token_counts,
                bool exact, bool hot, const Limits& limits, uint8_t* arena, size_t arena_bytes) {
  const size_t bytes = PackedBytes(shape.type, shape.rows, shape.cols);
  const size_t stride = (bytes + 4095) / 4096 * 4096;
  // Copies, so that each product finds its weights in memory, not in a cache.
  const size_t copies = hot ? 1 : std::max<size_t>(1, arena_bytes / stride);
  PackedMatrix w{arena, shape.type, shape.rows, shape.cols};
  for (const size_t tokens : token_counts) {
    if (tokens > 16 && shape.rows > 100000) continue;
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    std::vector<float> x(tokens * shape.cols), y(tokens * shape.rows);
    for (float& v : x) v = normal(rng);
    Activations a;
    a.Bind(HugePages(Activations::Bytes(tokens, shape.cols)), tokens, shape.cols);
    const double quantize =
        Median(5, [&] { a.Quantize(x.data(), shape.cols, shape.cols, 0, tokens); });
    a.Seal(x.data(), shape.cols, tokens, shape.cols);
    const size_t per_task = PanelsPerTask(w, tokens, pool.size());
    const size_t tasks = (w.panels() + per_task - 1) / per_task;
    const double flop = 2.0 * static_cast<double>(tokens) * shape.rows * shape.cols;
    const int loops =
        std::max(1, static_cast<int>(0.05 / (static_cast<double>(bytes) / 30e9 + flop / 1e12)));
    size_t copy = 0;
    const double seconds =
        Median(5,
               [&] {
                 for (int i = 0; i < loops; ++i) {
                   w.data = arena + copy++ % copies * stride;
                   pool.For(tasks, [&](size_t task, int) {
                     MatMul(w, a, task * per_task, std::min(w.panels(), (task + 1) * per_task),
                            exact, y.data(), shape.rows);
                   });
                 }
               }) /
        loops;
    const double gbps = static_cast<double>(bytes) / seconds, tops = flop / seconds;
    std::printf(
        "%-11s %-5s %5u x %-6u %4zu tok %9.1f us %6.3f TOPS (%3.0f %%) %6.2f GB/s (%3.0f %%)  "
        "quantize %.2f us/tok\n",
        shape.model, std::string(Info(shape.type).name).c_str(), shape.cols, shape.rows, tokens,
        seconds * 1e6, tops * 1e-12, limits.dot > 0 ? 100 * tops / limits.dot : 0, gbps * 1e-9,
        100 * gbps / limits.read, quantize * 1e6 / static_cast<double>(tokens));
    std::fflush(stdout);
  }
}

void BenchPacking(uint8_t* arena) {
  for (const DType type : kTypes) {
    const size_t rows = 1536, cols = 8960;
    const std::vector<uint8_t> raw(rows * RowBytes(type, cols), 7);
    const double s = Median(5, [&] { PackPanels(type, raw.data(), rows, cols, arena); });
    std::printf("pack %-5s %6.2f GB/s on one thread\n", std::string(Info(type).name).c_str(),
                static_cast<double>(raw.size()) / s * 1e-9);
  }
}

// A head of Gemma's size, whole and as planes. The token points at one row, as a model's last
// hidden state does; real ones leave more rows to look at.
void BenchPlanes(ThreadPool& pool) {
  const uint32_t rows = 262144, cols = 640;
  std::mt19937 rng(1);
  std::vector<uint8_t> raw(rows * RowBytes(DType::kQ8_0, cols));
  for (uint8_t& b : raw) b = static_cast<uint8_t>(rng() % 160 - 80);
  const uint16_t scale = FloatToHalf(0.001f);
  for (size_t at = 0; at < raw.size(); at += 34) std::memcpy(&raw[at], &scale, 2);
  PackedMatrix w{HugePages(PackedBytes(DType::kQ8_0, rows, cols)), DType::kQ8_0, rows, cols};
  PackPanels(DType::kQ8_0, raw.data(), rows, cols, const_cast<uint8_t*>(w.data));
  PlaneHead planes(HugePages(PlaneHead::Bytes(rows, cols)), rows, cols);
  planes.Pack(raw.data(), 0, rows);

  std::normal_distribution<float> normal(0, 0.04f);
  std::vector<float> x(cols), y(rows), bounds(PlaneScratchFloats(rows));
  UnpackRow(w, 12345, x.data());
  for (float& v : x) v += normal(rng);
  Activations a;
  a.Bind(HugePages(Activations::Bytes(1, cols)), 1, cols);
  a.Quantize(x.data(), cols, cols, 0, 1);
  a.Seal(x.data(), cols, 1, cols);
  const size_t per_task = PanelsPerTask(w, 1, pool.size()),
               tasks = (w.panels() + per_task - 1) / per_task;
  const auto each = [&](auto&& product) {
    return Median(15, [&] {
      pool.For(tasks, [&](size_t task, int) {
        product(task * per_task, std::min(w.panels(), (task + 1) * per_task));
      });
    });
  };
  const double full =
      each([&](size_t p, size_t end) { MatMul(w, a, p, end, false, y.data(), rows); });
  const double joined =
      each([&](size_t p, size_t end) { planes.MatMul(a, p, end, false, y.data(), rows); });
  std::printf("head 262144 x 640: whole %.3f ms, both planes %.3f ms\n", full * 1e3, joined * 1e3);
  std::vector<uint32_t> list(PlaneMaxSurvivors(rows));
  std::vector<Candidate> out(rows);
  for (const size_t k : {1, 40}) {
    PlaneStats stats;
    const double s = Median(15, [&] {
      PlaneTop(pool, planes, a, 0, {.k = k}, bounds.data(), list.data(), out.data(), rows, &stats);
    });
    std::printf("top %-3zu from planes %.3f ms (%.2f of whole), %zu survivors, %zu exact\n", k,
                s * 1e3, s / full, stats.survivors, stats.exact);
  }
}

int Run(int argc, char** argv) {
  CLI::App app("Speed of the matrix products beside this machine's limits");
  int threads = 2;
  std::vector<size_t> tokens = {1, 2, 4, 8, 12, 16, 64, 512};
  std::string filter;
  bool exact = false, hot = false, pack = false, planes = false;
  app.add_option("-t,--threads", threads, "threads")->capture_default_str();
  app.add_option("-n,--tokens", tokens, "token counts")->delimiter(',')->capture_default_str();
  app.add_option("-f,--filter", filter, "only rows whose name and type contain this");
  app.add_flag("--exact", exact, "float32 products of dequantized weights");
  app.add_flag("--hot", hot, "the same weights over and over: those that fit stay in the caches");
  app.add_flag("--pack", pack, "speed of repacking instead");
  app.add_flag("--planes", planes, "the plane-split head instead");
  CLI11_PARSE(app, argc, argv);

  const size_t arena_bytes = size_t{320} << 20;
  uint8_t* arena = HugePages(arena_bytes);
  if (pack) {
    BenchPacking(arena);
    return 0;
  }
  ThreadPool pool(threads);
  if (planes) {
    BenchPlanes(pool);
    return 0;
  }
  const Limits limits{ReadBandwidth(pool, arena, arena_bytes), DotPeak(pool)};
  std::printf("%s, %d threads: read %.1f GB/s, int8 %.2f TOPS\n", KernelTarget(), threads,
              limits.read * 1e-9, limits.dot * 1e-12);
  std::vector<Shape> shapes(std::begin(kShapes), std::end(kShapes));
  for (const DType type : kTypes) shapes.push_back({"any", type, 1536, 8960});
  for (const Shape& shape : shapes) {
    const std::string name = std::string(shape.model) + " " + std::string(Info(shape.type).name);
    if (name.find(filter) == std::string::npos) continue;
    BenchShape(pool, shape, tokens, exact, hot, limits, arena, arena_bytes);
  }
  return 0;
}

}  // namespace
}  // namespace snug

int main(int argc, char** argv) { return snug::Run(argc, argv); }
