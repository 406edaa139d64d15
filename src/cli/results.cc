#include "cli/results.h"

#include <fmt/format.h>
#include <sqlite3.h>

namespace snug::cli {
namespace {

constexpr int kVersion = 1, kPatience = 10'000;  // milliseconds

constexpr char kSchema[] = R"(
CREATE TABLE IF NOT EXISTS evaluation (
  weights TEXT NOT NULL, cache TEXT NOT NULL, text TEXT NOT NULL, reference TEXT NOT NULL,
  target TEXT NOT NULL, version TEXT NOT NULL, context INTEGER NOT NULL, prefix INTEGER NOT NULL,
  chunks INTEGER NOT NULL, text_name TEXT NOT NULL, tokens INTEGER NOT NULL, nll REAL NOT NULL,
  kl_mean REAL, kl_max REAL, top1 REAL, kv_held INTEGER,
  at INTEGER NOT NULL DEFAULT (unixepoch()),
  PRIMARY KEY (weights, cache, text, reference, target, version, context, prefix, chunks));
PRAGMA user_version = 1;
)";
constexpr char kFind[] =
    "SELECT text_name, tokens, nll, kl_mean, kl_max, top1, kv_held FROM evaluation WHERE "
    "weights = ?1 AND cache = ?2 AND text = ?3 AND reference = ?4 AND target = ?5 AND "
    "version = ?6 AND context = ?7 AND prefix = ?8 AND chunks = ?9";
constexpr char kPut[] =
    "INSERT OR REPLACE INTO evaluation (weights, cache, text, reference, target, version, context, "
    "prefix, chunks, text_name, tokens, nll, kl_mean, kl_max, top1, kv_held) VALUES "
    "(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
constexpr char kOfCache[] =
    "SELECT text_name, prefix, tokens, kl_mean, top1, kv_held FROM evaluation WHERE weights = ?1 "
    "AND cache = ?2 AND prefix > 0 AND kl_mean IS NOT NULL ORDER BY at DESC, rowid DESC LIMIT 20";

// A prepared statement, whose parameters and columns are counted from 1 and 0 as SQLite's are.
class Statement {
 public:
  Statement(sqlite3* db, const char* sql) {
    status_ = sqlite3_prepare_v2(db, sql, -1, &statement_, nullptr);
  }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  ~Statement() { sqlite3_finalize(statement_); }

  bool ok() const { return status_ == SQLITE_OK; }
  void Bind(const std::string& text) {
    Keep(sqlite3_bind_text(statement_, ++bound_, text.c_str(), -1, SQLITE_TRANSIENT));
  }
  void Bind(uint64_t n) {
    Keep(sqlite3_bind_int64(statement_, ++bound_, static_cast<sqlite3_int64>(n)));
  }
  void Bind(double x) { Keep(sqlite3_bind_double(statement_, ++bound_, x)); }
  template <class T>
  void Bind(const std::optional<T>& x) {
    if (x) {
      Bind(*x);
    } else {
      Keep(sqlite3_bind_null(statement_, ++bound_));
    }
  }
  int Step() { return ok() ? sqlite3_step(statement_) : status_; }

  std::string Text(int column) const {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return text == nullptr ? "" : text;
  }
  uint64_t Int(int column) const {
    return static_cast<uint64_t>(sqlite3_column_int64(statement_, column));
  }
  double Real(int column) const { return sqlite3_column_double(statement_, column); }
  bool Null(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }

 private:
  void Keep(int status) {
    if (status_ == SQLITE_OK) status_ = status;
  }
  sqlite3_stmt* statement_ = nullptr;
  int status_ = SQLITE_OK, bound_ = 0;
};

void BindKey(const EvaluationKey& key, Statement* s) {
  for (const std::string* text :
       {&key.weights, &key.cache, &key.text, &key.reference, &key.target, &key.version}) {
    s->Bind(*text);
  }
  for (const uint64_t n : {key.context, key.prefix, key.chunks}) s->Bind(n);
}

}  // namespace

void Results::Close::operator()(sqlite3* db) const { sqlite3_close(db); }

Error Results::Failed(const char* what) const {
  const int code = sqlite3_errcode(db_.get());
  const bool broken = code == SQLITE_NOTADB || code == SQLITE_CORRUPT || code == SQLITE_ERROR;
  return MakeError(broken ? Code::kBadFile : Code::kIo,
                   fmt::format("{}: {}: {}", path_, what, sqlite3_errmsg(db_.get())),
                   broken ? "give --results another file" : "is another program writing to it?");
}

Result<Results> Results::Open(const std::string& path) {
  Results r;
  r.path_ = path;
  sqlite3* db = nullptr;
  const int opened =
      sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
  r.db_.reset(db);
  if (db == nullptr) return MakeError(Code::kIo, path + ": no memory to open it");
  if (opened != SQLITE_OK) {
    return MakeError(Code::kIo, fmt::format("{}: {}", path, sqlite3_errmsg(db)),
                     "give --results a file in a folder that exists");
  }
  sqlite3_busy_timeout(db, kPatience);
  sqlite3_exec(db, "PRAGMA cache_size = -512; PRAGMA trusted_schema = OFF", nullptr, nullptr,
               nullptr);
  int version = 0;
  {
    Statement asked(db, "PRAGMA user_version");
    if (asked.Step() != SQLITE_ROW) return r.Failed("reading it");
    version = static_cast<int>(asked.Int(0));
  }
  if (version > kVersion) {
    return MakeError(Code::kBadFile,
                     fmt::format("{} was written by a later version (format {}, this one knows {})",
                                 path, version, kVersion),
                     "give --results another file");
  }
  if (version < kVersion && sqlite3_exec(db, kSchema, nullptr, nullptr, nullptr) != SQLITE_OK) {
    return r.Failed("setting it up");
  }
  return r;
}

Result<std::optional<EvaluationRecord>> Results::Find(const EvaluationKey& key) const {
  Statement s(db_.get(), kFind);
  BindKey(key, &s);
  const int step = s.Step();
  if (step == SQLITE_DONE) return std::optional<EvaluationRecord>();
  if (step != SQLITE_ROW) return Failed("reading it");
  EvaluationRecord r;
  r.text_name = s.Text(0);
  r.tokens = s.Int(1);
  r.nll = s.Real(2);
  if (!s.Null(3)) r.kl_mean = s.Real(3);
  if (!s.Null(4)) r.kl_max = s.Real(4);
  if (!s.Null(5)) r.top1 = s.Real(5);
  if (!s.Null(6)) r.kv_held = s.Int(6);
  return std::optional(std::move(r));
}

Status Results::Put(const EvaluationKey& key, const EvaluationRecord& r) {
  Statement s(db_.get(), kPut);
  BindKey(key, &s);
  s.Bind(r.text_name);
  s.Bind(r.tokens);
  s.Bind(r.nll);
  s.Bind(r.kl_mean);
  s.Bind(r.kl_max);
  s.Bind(r.top1);
  s.Bind(r.kv_held);
  if (s.Step() != SQLITE_DONE) return Failed("writing to it");
  return {};
}

Result<std::vector<KnownCost>> Results::OfCache(const std::string& weights,
                                                const std::string& cache) const {
  Statement s(db_.get(), kOfCache);
  s.Bind(weights);
  s.Bind(cache);
  std::vector<KnownCost> known;
  int step = s.Step();
  for (; step == SQLITE_ROW; step = s.Step()) {
    known.push_back({s.Text(0), s.Int(1), s.Int(2), s.Real(3), s.Real(4), s.Int(5)});
  }
  if (step != SQLITE_DONE) return Failed("reading it");
  return known;
}

}  // namespace snug::cli
