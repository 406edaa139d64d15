// The syntax tree of a template. All nodes lie in one list, so that however deep a tree is, it goes
// away without recursion; nodes refer to each other by plain pointers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "text/jinja/builtins.h"
#include "text/jinja/operators.h"

namespace snug::jinja {

struct Node {
  virtual ~Node() = default;
  uint32_t at = 0;  // byte of the source
};

// ---- expressions

struct Expr : Node {
  enum class Type : uint8_t {
    kConst,
    kName,
    kTuple,
    kList,
    kDict,
    kConditional,
    kAnd,
    kOr,
    kNot,
    kNegate,
    kPlus,
    kCompare,
    kArithmetic,
    kConcat,
    kAttribute,
    kItem,
    kSlice,
    kCall,
    kFilter,
    kTest
  };
  explicit Expr(Type t) : type(t) {}
  const Type type;
};

struct Const : Expr {
  Const() : Expr(Type::kConst) {}
  uint32_t index = 0;  // into Ast::constants
};

struct Name : Expr {
  Name() : Expr(Type::kName) {}
  uint32_t id = 0;  // into Ast::names
};

// kTuple, kList, kAnd, kOr, kConcat; kNot, kNegate and kPlus with one; kDict as key, value, ...;
// kConditional as condition, value, and what else, if anything.
struct Several : Expr {
  using Expr::Expr;
  std::vector<Expr*> parts;
};

// kCompare and kArithmetic: a chain from left to right.
struct Chain : Expr {
  using Expr::Expr;
  struct Link {
    enum class In : uint8_t { kNeither, kIn, kNotIn };
    Operator op = Operator::kAdd;
    Relation relation = Relation::kEqual;
    In in = In::kNeither;
    Expr* right = nullptr;
    uint32_t at = 0;
  };
  Expr* first = nullptr;
  std::vector<Link> links;
};

struct Attribute : Expr {
  Attribute() : Expr(Type::kAttribute) {}
  Expr* object = nullptr;
  std::string name;
};

// kItem with one index; kSlice with three bounds, null where left out.
struct Subscript : Expr {
  using Expr::Expr;
  Expr* object = nullptr;
  Expr* index[3] = {};
};

struct CallArgs {
  std::vector<Expr*> positional;
  std::vector<std::pair<std::string, Expr*>> named;
  Expr* more_positional = nullptr;  // *args
  Expr* more_named = nullptr;       // **kwargs
};

struct Call : Expr {
  Call() : Expr(Type::kCall) {}
  Expr* callee = nullptr;
  CallArgs args;
};

struct FilterExpr : Expr {
  FilterExpr() : Expr(Type::kFilter) {}
  Expr* input = nullptr;  // null: the text of the block that the filter ends
  std::string name;
  Builtin filter = nullptr;  // null: unknown, an error when reached
  CallArgs args;
};

struct TestExpr : Expr {
  TestExpr() : Expr(Type::kTest) {}
  Expr* input = nullptr;
  std::string name;
  Test test = nullptr;  // null: unknown, an error when reached
  CallArgs args;
};

// What can be assigned to.
struct Target : Node {
  enum class Type : uint8_t { kName, kNamespace, kTuple };
  Type type = Type::kName;
  uint32_t id = 0;             // kName, kNamespace
  std::string attribute;       // kNamespace
  std::vector<Target*> parts;  // kTuple
};

// ---- statements

struct Statement : Node {
  enum class Type : uint8_t {
    kOutput,
    kIf,
    kFor,
    kBreak,
    kContinue,
    kSet,
    kSetBlock,
    kWith,
    kMacro,
    kCallBlock,
    kFilterBlock,
    kScope,
    kBlock,
    kRefused
  };
  explicit Statement(Type t) : type(t) {}
  const Type type;
};

struct Body {
  std::vector<Statement*> statements;
  // Where the body has a scope of its own: names that it sets before it reads them itself. jinja2
  // leaves them undefined until then, also for the blocks within, whatever the input says of them.
  std::vector<uint32_t> unset;
};

// Text and expressions to print.
struct Output : Statement {
  Output() : Statement(Type::kOutput) {}
  struct Piece {
    std::string text;
    Expr* expr = nullptr;
  };
  std::vector<Piece> pieces;
};

struct If : Statement {
  If() : Statement(Type::kIf) {}
  struct Branch {
    Expr* condition = nullptr;  // null: else
    Body body;
  };
  std::vector<Branch> branches;
};

struct For : Statement {
  For() : Statement(Type::kFor) {}
  Target* target = nullptr;
  Expr* over = nullptr;
  Expr* condition = nullptr;
  bool recursive = false;
  Body body, otherwise;
};

struct Set : Statement {
  Set() : Statement(Type::kSet) {}
  Target* target = nullptr;
  Expr* value = nullptr;
};

// kSetBlock; kFilterBlock without a target; kScope and kBlock, which just have a body.
struct BlockStatement : Statement {
  using Statement::Statement;
  Target* target = nullptr;
  Expr* filter = nullptr;
  Body body;
};

struct With : Statement {
  With() : Statement(Type::kWith) {}
  std::vector<std::pair<Target*, Expr*>> values;
  Body body;
};

// What a macro takes; also the body of a call block.
struct Signature {
  struct Parameter {
    uint32_t id = 0;
    Expr* fallback = nullptr;
  };
  std::string name;
  std::vector<Parameter> parameters;
  // Whether the body names these.
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;
  Body body;
};

struct Macro : Statement {
  Macro() : Statement(Type::kMacro) {}
  uint32_t id = 0;
  Signature signature;
};

struct CallBlock : Statement {
  CallBlock() : Statement(Type::kCallBlock) {}
  Call* call = nullptr;
  Signature signature;
};

// A statement that no chat template can run, such as include.
struct Refused : Statement {
  Refused() : Statement(Type::kRefused) {}
  std::string what;
};

struct ConstantData {
  Kind kind = Kind::kNone;
  int64_t integer = 0;
  double number = 0;
  std::string text;
};

// Names that the interpreter itself sets, at the start of Ast::names.
constexpr uint32_t kLoopId = 0, kCallerId = 1, kVarargsId = 2, kKwargsId = 3;
constexpr std::string_view kReservedNames[] = {"loop", "caller", "varargs", "kwargs"};

struct Ast {
  std::string source;
  Body body;
  std::vector<ConstantData> constants;
  std::vector<std::string> names;
  std::unordered_map<std::string, uint32_t> ids;
  std::vector<std::unique_ptr<Node>> nodes;
  uint32_t IdOf(std::string_view name) {
    const auto [it, added] = ids.emplace(name, static_cast<uint32_t>(names.size()));
    if (added) names.emplace_back(name);
    return it->second;
  }
};

}  // namespace snug::jinja
