// snug doctor: what this machine allows, and which bound is the tightest.
#include <fmt/format.h>

#include <fstream>

#include "cli/args.h"
#include "engine/limits.h"
#include "kernel/matmul.h"

namespace snug::cli {
namespace {

constexpr uint64_t kReadBytes = 128 * kMiB;

Result<int> Doctor(const std::string& model, const std::string& memory, bool json) {
  const std::vector<MemoryBound> bounds = MemoryBounds();
  SNUG_ASSIGN(const Budget budget, ParseBudget(memory, bounds));
  SNUG_ASSIGN(const Budget automatic, ParseBudget("auto", bounds));
  const CpuCount cpus = UsableCpus();
  Ledger ledger(kReadBytes);
  ThreadPool pool(cpus.cpus);
  SNUG_ASSIGN(const double reads, MeasureReads(pool, ledger, kReadBytes, 5));
  const double disk = DiskRate(model.empty() ? "/proc/self/exe" : model);
  std::string huge;
  std::ifstream in("/sys/kernel/mm/transparent_hugepage/enabled");
  std::getline(in, huge);
  if (json) {
    Json out = {
        {"cpu", CpuModel()},        {"threads", cpus.cpus},      {"threads_origin", cpus.origin},
        {"target", KernelTarget()}, {"read_bytes_per_s", reads}, {"disk_bytes_per_s", disk},
        {"huge_pages", huge},       {"bounds", Json::array()}};
    for (const MemoryBound& b : bounds) {
      out["bounds"].push_back(
          {{"name", b.name}, {"limit", b.limit}, {"in_use", b.in_use}, {"free", b.free()}});
    }
    out["auto"] = {
        {"bytes", automatic.bytes}, {"bound", automatic.origin}, {"reserve", automatic.reserve}};
    out["budget"] = {{"memory", memory},
                     {"bytes", budget.bytes},
                     {"origin", budget.origin},
                     {"reserve", budget.reserve}};
    fmt::print("{}\n", DumpJson(out));
    return 0;
  }
  fmt::print("cpu            {}\nthreads        {} ({})\ntarget         {}\nhuge pages     {}\n",
             CpuModel(), cpus.cpus, cpus.origin, KernelTarget(), huge);
  fmt::print("memory reads   {:.1f} GB/s\ndirect reads   {:.2f} GB/s\n\n", reads / 1e9, disk / 1e9);
  for (const MemoryBound& b : bounds) {
    fmt::print("{:<40} limit {:>11}  in use {:>11}  free {:>11}{}\n", b.name, FormatBytes(b.limit),
               FormatBytes(b.in_use), FormatBytes(b.free()),
               automatic.origin == b.name ? "  <- binds" : "");
  }
  fmt::print("\n--memory {} is {} ({}{})\n", memory, FormatBytes(budget.bytes), budget.origin,
             budget.reserve > 0 ? fmt::format(", less {}", FormatBytes(budget.reserve)) : "");
  return 0;
}

}  // namespace

void AddDoctor(CLI::App& app, int* exit_code) {
  struct DoctorArgs {
    std::string model, memory = "auto";
    bool json = false;
  };
  auto a = std::make_shared<DoctorArgs>();
  Verb doctor(app, "doctor", "show memory bounds, CPU and measured rates of this machine");
  doctor.Add("MODEL", a->model, "measure direct reads of this file");
  doctor.Add("--memory", a->memory, "what this budget comes to here, and why")
      .Environment("SNUG_MEMORY")
      .Default();
  doctor.Flag("--json", a->json, "one JSON object on stdout");
  doctor.Callback([a, exit_code] {
    const Result<int> r = Doctor(a->model, a->memory, a->json);
    *exit_code = r.ok() ? *r : Report(r.error(), a->json);
  });
}

}  // namespace snug::cli
