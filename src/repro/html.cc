// Reports as one page of HTML: tables, and a plot of what caches take against what they cost.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "repro/repro.h"
#include "text/jinja/chars.h"

namespace snug {
namespace {

constexpr char kStyle[] =
    "body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}"
    "td,th{border:1px solid #ccc;padding:.3em .6em;text-align:left;vertical-align:top}"
    "th{background:#f3f3f3}code{font-size:90%}.holds{color:#176b2c}.differs{color:#a02020}"
    ".absent{color:#86650a}svg text{font:11px sans-serif}";

// As HTML; what stands between backticks, as in Markdown, is code.
std::string Escaped(std::string_view text) {
  std::string out;
  bool code = false;
  for (const char c : jinja::EscapeHtml(text)) {
    if (c != '`') {
      out += c;
      continue;
    }
    out += code ? "</code>" : "<code>";
    code = !code;
  }
  return code ? out + "</code>" : out;
}

std::string_view ClassOf(Verdict v) {
  return v == Verdict::kHolds ? "holds" : v == Verdict::kDiffers ? "differs" : "absent";
}

// Bytes go to the right, in shares of the largest; divergence upwards, in powers of ten.
std::string Plot(std::span<const ReproPoint> points) {
  constexpr double kWidth = 860, kHeight = 420, kLeft = 60, kBottom = 40, kTop = 20;
  constexpr double kRight = 220;  // room for names
  double most = 0, low = 1e9, high = 1e-9;
  for (const ReproPoint& p : points) {
    most = std::max(most, static_cast<double>(p.bytes));
    if (!p.kl || *p.kl <= 0) continue;
    low = std::min(low, *p.kl);
    high = std::max(high, *p.kl);
  }
  if (most <= 0 || low > high) return {};
  const double from = std::floor(std::log10(low)),
               to = std::max(from + 1, std::ceil(std::log10(high)));
  const auto x = [&](double bytes) { return kLeft + (kWidth - kLeft - kRight) * bytes / most; };
  const auto y = [&](double kl) {
    return kTop + (kHeight - kTop - kBottom) * (to - std::log10(kl)) / (to - from);
  };
  std::string out = fmt::format(
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"divergence against bytes\">\n", kWidth,
      kHeight);
  const auto text = [&](double at_x, double at_y, std::string_view what, std::string_view anchor) {
    out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", at_x, at_y,
                       anchor, Escaped(what));
  };
  for (double e = from; e <= to; ++e) {
    const double at = y(std::pow(10, e));
    out += fmt::format("<line x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#ddd\"/>\n",
                       kLeft, kWidth - kRight, at, at);
    text(kLeft - 6, at + 4, fmt::format("{:g}", std::pow(10, e)), "end");
  }
  for (int i = 0; i <= 4; ++i) {
    const double bytes = most * i / 4;
    text(x(bytes), kHeight - kBottom + 16, FormatBytes(static_cast<uint64_t>(bytes)), "middle");
  }
  text(kLeft, kHeight - 6, "bytes held; upwards: mean KL to the dense cache", "start");
  // Names keep clear of each other: those that would touch move down.
  std::vector<const ReproPoint*> sorted;
  for (const ReproPoint& p : points) {
    if (p.kl && *p.kl > 0) sorted.push_back(&p);
  }
  std::sort(sorted.begin(), sorted.end(),
            [](const auto* a, const auto* b) { return *a->kl > *b->kl; });
  double free_from = 0;
  for (const ReproPoint* p : sorted) {
    const double px = x(static_cast<double>(p->bytes)), py = y(*p->kl);
    const double label = std::max(py, free_from);
    free_from = label + 12;
    out += fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"#2060a0\"/>"
        "<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#bcd\"/>\n",
        px, py, px + 5, kWidth - kRight + 6, py, label);
    text(kWidth - kRight + 10, label + 4, p->setting, "start");
  }
  return out + "</svg>\n";
}

std::string Row(std::initializer_list<std::string> cells, const char* tag = "td") {
  std::string out = "<tr>";
  for (const std::string& c : cells) out += fmt::format("<{}>{}</{}>", tag, c, tag);
  return out + "</tr>\n";
}

std::string Section(const ReproReport& r) {
  std::string out =
      fmt::format("<h2 id=\"{0}\">{0}</h2>\n<p>{1}; on {2}. {3}</p>\n", Escaped(r.slug),
                  Escaped(r.source), Escaped(r.model), Escaped(r.method));
  if (!r.rows.empty()) {
    out += "<table>\n" + Row({"claim", "setting", "measured", "verdict"}, "th");
    for (const ReproRow& row : r.rows) {
      out += Row(
          {Escaped(row.claim), Escaped(row.setting), Escaped(row.measured),
           fmt::format("<b class=\"{}\">{}</b>", ClassOf(row.verdict), VerdictName(row.verdict))});
    }
    out += "</table>\n";
  }
  if (!r.not_shown.empty()) {
    out += "<p>Not shown here:</p>\n<ul>\n";
    for (const std::string& s : r.not_shown) out += fmt::format("<li>{}</li>\n", Escaped(s));
    out += "</ul>\n";
  }
  return out;
}

}  // namespace

std::string ReproHtml(std::span<const ReproReport> reports) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Published claims, "
      "run again</title><style>{}</style></head><body>\n<h1>Published claims, run again</h1>\n",
      kStyle);
  std::vector<ReproPoint> points;
  for (const ReproReport& r : reports) {
    for (const ReproPoint& p : r.points) {
      const auto same = [&](const ReproPoint& other) { return other.setting == p.setting; };
      if (std::none_of(points.begin(), points.end(), same)) points.push_back(p);
    }
  }
  out += Plot(points);
  if (!points.empty()) {
    out += "<table>\n" + Row({"cache", "bytes", "KL", "worst text", "top-1", "perplexity"}, "th");
    for (const ReproPoint& p : points) {
      const auto number = [](const std::optional<double>& x, double by, const char* unit) {
        return x ? fmt::format("{:.4g}{}", *x * by, unit) : std::string("-");
      };
      out += Row({Escaped("`" + p.setting + "`"), FormatBytes(p.bytes), number(p.kl, 1, ""),
                  number(p.kl_worst_text, 1, ""), number(p.top1, 100, " %"),
                  fmt::format("{:.2f}", p.perplexity)});
    }
    out += "</table>\n";
  }
  for (const ReproReport& r : reports) out += Section(r);
  return out + "</body></html>\n";
}

}  // namespace snug
