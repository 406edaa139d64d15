#include "repro/repro.h"

#include <fmt/format.h>

#include <algorithm>

#include "repro/cache_claims.h"

namespace snug {

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

const Repro* FindRepro(std::string_view slug) {
  for (const Repro& r : Repros()) {
    if (r.slug == slug) return &r;
  }
  return nullptr;
}

Result<std::vector<ReproReport>> RunRepros(std::span<const Repro> repros,
                                           const ReproOptions& options) {
  std::vector<CacheSetting> settings;
  const auto add = [&](const CacheSetting& s) {
    const auto same = [&](const CacheSetting& other) { return other.Name() == s.Name(); };
    if (std::none_of(settings.begin(), settings.end(), same)) settings.push_back(s);
  };
  for (const Repro& r : repros) {
    for (const CacheClaim& c : r.claims) {
      add(c.setting);
      for (size_t i = 0; i < c.other_count; ++i) add(c.others[i]);
    }
  }
  CacheFigureMap figures;
  if (!settings.empty()) {
    if (options.texts.empty()) {
      return MakeError(Code::kUsage, "claims about caches are measured on texts, and none is given",
                       "give --text FILE, several times for several texts");
    }
    SNUG_ASSIGN(figures, MeasureCaches(settings, options));
  }
  std::vector<ReproReport> reports;
  for (const Repro& r : repros) {
    if (r.run == nullptr) {
      reports.push_back(JudgeCaches(r, figures, options));
      continue;
    }
    SNUG_ASSIGN(ReproReport report, r.run(options));
    reports.push_back(std::move(report));
  }
  return reports;
}

Json ReproJson(const ReproReport& report) {
  Json rows = Json::array();
  for (const ReproRow& r : report.rows) {
    rows.push_back({{"claim", r.claim},
                    {"setting", r.setting},
                    {"measured", r.measured},
                    {"verdict", VerdictName(r.verdict)}});
  }
  Json points = Json::array();
  for (const ReproPoint& p : report.points) {
    Json point = {{"setting", p.setting}, {"bytes", p.bytes}, {"ppl", p.perplexity}};
    if (p.kl) point["kl_mean"] = *p.kl;
    if (p.kl_worst_text) point["kl_worst_text"] = *p.kl_worst_text;
    if (p.top1) point["top1"] = *p.top1;
    points.push_back(std::move(point));
  }
  return {{"slug", report.slug},
          {"source", report.source},
          {"model", report.model},
          {"method", report.method},
          {"rows", rows},
          {"points", points},
          {"not_shown", report.not_shown}};
}

std::string ReproMarkdown(const ReproReport& report) {
  std::string out = fmt::format("# {}\n\n{}; on {}.\n\n", report.slug, report.source, report.model);
  if (!report.method.empty()) out += report.method + "\n\n";
  out += "| claim | setting | measured | verdict |\n|---|---|---|---|\n";
  for (const ReproRow& r : report.rows) {
    out += fmt::format("| {} | {} | {} | {} |\n", r.claim, r.setting, r.measured,
                       VerdictName(r.verdict));
  }
  if (!report.points.empty()) {
    out +=
        "\n| cache | bytes | KL | worst text | top-1 | perplexity |\n|---|---|---|---|---|---|\n";
  }
  for (const ReproPoint& p : report.points) {
    out += fmt::format("| `{}` | {} |", p.setting, FormatBytes(p.bytes));
    out += p.kl ? fmt::format(" {:.4f} | {:.4f} | {:.1f} % |", *p.kl, p.kl_worst_text.value_or(0),
                              100 * p.top1.value_or(0))
                : " - | - | - |";
    out += fmt::format(" {:.2f} |\n", p.perplexity);
  }
  if (!report.not_shown.empty()) out += "\nNot shown here:\n";
  for (const std::string& s : report.not_shown) out += fmt::format("- {}\n", s);
  return out;
}

}  // namespace snug
