#include "repro/repro.h"

#include <fmt/format.h>

namespace snug {
namespace {

constexpr Repro kRepros[] = {
    {"superpipeline", "Abbasi and Lim, arXiv 2410.08791", ReproSuperpipeline},
};

}  // namespace

std::string_view VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kHolds:
      return "holds";
    case Verdict::kDiffers:
      return "differs";
    case Verdict::kAbsent:
      return "premise absent";
  }
  return "";
}

std::span<const Repro> Repros() { return kRepros; }

const Repro* FindRepro(std::string_view slug) {
  for (const Repro& r : kRepros) {
    if (r.slug == slug) return &r;
  }
  return nullptr;
}

Json ReproJson(const ReproReport& report) {
  Json rows = Json::array();
  for (const ReproRow& r : report.rows) {
    rows.push_back({{"claim", r.claim},
                    {"setting", r.setting},
                    {"measured", r.measured},
                    {"verdict", VerdictName(r.verdict)}});
  }
  return {{"slug", report.slug},
          {"source", report.source},
          {"model", report.model},
          {"rows", rows},
          {"not_shown", report.not_shown}};
}

std::string ReproMarkdown(const ReproReport& report) {
  std::string out = fmt::format("# {}\n\n{}; on {}.\n\n| claim | setting | measured | verdict |\n",
                                report.slug, report.source, report.model);
  out += "|---|---|---|---|\n";
  for (const ReproRow& r : report.rows) {
    out += fmt::format("| {} | {} | {} | {} |\n", r.claim, r.setting, r.measured,
                       VerdictName(r.verdict));
  }
  out += "\nNot shown here:\n";
  for (const std::string& s : report.not_shown) out += fmt::format("- {}\n", s);
  return out;
}

}  // namespace snug
