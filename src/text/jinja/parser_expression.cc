// Expressions, from the loosest to the tightest: conditional, or, and, not, comparison, + -, ~,
// * / // %, **, signs, and what follows a value: .a [b] (c) |filter `is test`.
#include <algorithm>

#include "text/jinja/numbers.h"
#include "text/jinja/parser.h"

namespace snug::jinja {
namespace {

constexpr struct {
  std::string_view symbol;
  Relation relation;
} kRelations[] = {{"==", Relation::kEqual},  {"!=", Relation::kNotEqual},
                  {"<", Relation::kLess},    {"<=", Relation::kLessEqual},
                  {">", Relation::kGreater}, {">=", Relation::kGreaterEqual}};

constexpr struct {
  std::string_view symbol;
  Operator op;
} kProducts[] = {{"*", Operator::kMul},
                 {"/", Operator::kDiv},
                 {"//", Operator::kFloorDiv},
                 {"%", Operator::kMod}};

}  // namespace

Expr* Parser::NewConst(uint32_t at, ConstantData data) {
  Const* node = New<Const>(at);
  node->index = static_cast<uint32_t>(ast_.constants.size());
  ast_.constants.push_back(std::move(data));
  return node;
}

Expr* Parser::NewSeveral(Expr::Type type, uint32_t at, std::vector<Expr*> parts) {
  auto* node = New<Several>(at, type);
  node->parts = std::move(parts);
  return node;
}

Result<Expr*> Parser::ParseExpression(bool conditional) {
  return conditional ? ParseConditional() : ParseOr();
}

bool Parser::IsTupleEnd(std::string_view end_name) const {
  return token().type == TokenType::kVariableEnd || token().type == TokenType::kBlockEnd ||
         IsOperator(")") || (!end_name.empty() && IsName(end_name));
}

// An expression, or several separated by commas, which make a tuple.
Result<Expr*> Parser::ParseTuple(bool conditional, std::string_view end_name, bool parentheses) {
  const uint32_t at = token().at;
  std::vector<Expr*> parts;
  bool tuple = false;
  while (!IsTupleEnd(end_name)) {
    SNUG_ASSIGN(Expr * part, ParseExpression(conditional));
    parts.push_back(part);
    if (!SkipOperator(",")) break;
    tuple = true;
  }
  if (!tuple && !parts.empty()) return parts[0];
  if (!tuple && !parentheses) return Unexpected("an expression");
  return NewSeveral(Expr::Type::kTuple, at, std::move(parts));
}

Result<Expr*> Parser::ParseConditional() {
  const Nest nest(*this);
  if (nest.too_deep()) return TooDeep();
  SNUG_ASSIGN(Expr * value, ParseOr());
  while (IsName("if")) {
    const uint32_t at = Take().at;
    const bool soft_before = std::exchange(soft_, true);
    SNUG_ASSIGN(Expr * condition, ParseOr());
    std::vector<Expr*> parts = {condition, value};
    if (SkipName("else")) {
      SNUG_ASSIGN(Expr * otherwise, ParseConditional());
      parts.push_back(otherwise);
    }
    soft_ = soft_before;
    value = NewSeveral(Expr::Type::kConditional, at, std::move(parts));
  }
  return value;
}

Result<Expr*> Parser::ParseOr() {
  const uint32_t at = token().at;
  SNUG_ASSIGN(Expr * left, ParseAnd());
  if (!IsName("or")) return left;
  std::vector<Expr*> parts = {left};
  while (SkipName("or")) {
    SNUG_ASSIGN(Expr * right, ParseAnd());
    parts.push_back(right);
  }
  return NewSeveral(Expr::Type::kOr, at, std::move(parts));
}

Result<Expr*> Parser::ParseAnd() {
  const uint32_t at = token().at;
  SNUG_ASSIGN(Expr * left, ParseNot());
  if (!IsName("and")) return left;
  std::vector<Expr*> parts = {left};
  while (SkipName("and")) {
    SNUG_ASSIGN(Expr * right, ParseNot());
    parts.push_back(right);
  }
  return NewSeveral(Expr::Type::kAnd, at, std::move(parts));
}

Result<Expr*> Parser::ParseNot() {
  if (!IsName("not")) return ParseCompare();
  const Nest nest(*this);
  if (nest.too_deep()) return TooDeep();
  const uint32_t at = Take().at;
  SNUG_ASSIGN(Expr * operand, ParseNot());
  return NewSeveral(Expr::Type::kNot, at, {operand});
}

Result<Expr*> Parser::ParseCompare() {
  SNUG_ASSIGN(Expr * first, ParseSum());
  std::vector<Chain::Link> links;
  while (true) {
    Chain::Link link;
    link.at = token().at;
    const auto* relation = std::find_if(std::begin(kRelations), std::end(kRelations),
                                        [&](const auto& r) { return IsOperator(r.symbol); });
    if (relation != std::end(kRelations)) {
      link.relation = relation->relation;
      Take();
    } else if (SkipName("in")) {
      link.in = Chain::Link::In::kIn;
    } else if (IsName("not") && Ahead(1).type == TokenType::kName && Ahead(1).text == "in") {
      link.in = Chain::Link::In::kNotIn;
      Take();
      Take();
    } else {
      break;
    }
    SNUG_ASSIGN(link.right, ParseSum());
    links.push_back(link);
  }
  if (links.empty()) return first;
  auto* node = New<Chain>(links[0].at, Expr::Type::kCompare);
  node->first = first;
  node->links = std::move(links);
  return node;
}

Result<Expr*> Parser::ParseSum() {
  SNUG_ASSIGN(Expr * first, ParseConcat());
  if (!IsOperator("+") && !IsOperator("-")) return first;
  auto* node = New<Chain>(token().at, Expr::Type::kArithmetic);
  node->first = first;
  while (IsOperator("+") || IsOperator("-")) {
    Chain::Link link;
    link.op = IsOperator("+") ? Operator::kAdd : Operator::kSub;
    link.at = Take().at;
    SNUG_ASSIGN(link.right, ParseConcat());
    node->links.push_back(link);
  }
  return node;
}

Result<Expr*> Parser::ParseConcat() {
  const uint32_t at = token().at;
  SNUG_ASSIGN(Expr * first, ParseProduct());
  if (!IsOperator("~")) return first;
  std::vector<Expr*> parts = {first};
  while (SkipOperator("~")) {
    SNUG_ASSIGN(Expr * part, ParseProduct());
    parts.push_back(part);
  }
  return NewSeveral(Expr::Type::kConcat, at, std::move(parts));
}

Result<Expr*> Parser::ParseProduct() {
  SNUG_ASSIGN(Expr * first, ParsePower());
  Chain* node = nullptr;
  while (true) {
    const auto* product = std::find_if(std::begin(kProducts), std::end(kProducts),
                                       [&](const auto& p) { return IsOperator(p.symbol); });
    if (product == std::end(kProducts)) break;
    if (node == nullptr) {
      node = New<Chain>(token().at, Expr::Type::kArithmetic);
      node->first = first;
    }
    Chain::Link link;
    link.op = product->op;
    link.at = Take().at;
    SNUG_ASSIGN(link.right, ParsePower());
    node->links.push_back(link);
  }
  return node == nullptr ? first : node;
}

Result<Expr*> Parser::ParsePower() {
  SNUG_ASSIGN(Expr * first, ParseUnary(true));
  if (!IsOperator("**")) return first;
  auto* node = New<Chain>(token().at, Expr::Type::kArithmetic);
  node->first = first;
  while (IsOperator("**")) {
    Chain::Link link;
    link.op = Operator::kPow;
    link.at = Take().at;
    SNUG_ASSIGN(link.right, ParseUnary(true));
    node->links.push_back(link);
  }
  return node;
}

Result<Expr*> Parser::ParseUnary(bool filters) {
  const uint32_t at = token().at;
  Expr* e = nullptr;
  if (IsOperator("-") || IsOperator("+")) {
    const Nest nest(*this);
    if (nest.too_deep()) return TooDeep();
    const bool negate = Take().text == "-";
    SNUG_ASSIGN(Expr * operand, ParseUnary(false));
    e = NewSeveral(negate ? Expr::Type::kNegate : Expr::Type::kPlus, at, {operand});
  } else {
    SNUG_ASSIGN(e, ParsePrimary());
  }
  SNUG_ASSIGN(e, ParsePostfix(e));
  return filters ? ParseFilters(e) : e;
}

Result<Expr*> Parser::ParsePrimary() {
  switch (token().type) {
    case TokenType::kName:
      return ParseName();
    case TokenType::kString:
      return ParseStrings();
    case TokenType::kInteger:
    case TokenType::kFloat:
      return ParseNumber();
    default:
      break;
  }
  if (IsOperator("[")) return ParseList();
  if (IsOperator("{")) return ParseDict();
  if (!SkipOperator("(")) return Unexpected("an expression");
  SNUG_ASSIGN(Expr * inner, ParseTuple(true, "", true));
  SNUG_TRY(ExpectOperator(")"));
  return inner;
}

Result<Expr*> Parser::ParseName() {
  const LexToken name = Take();
  ConstantData constant;
  if (name.text == "none" || name.text == "None") return NewConst(name.at, constant);
  const bool yes = name.text == "true" || name.text == "True";
  if (yes || name.text == "false" || name.text == "False") {
    constant.kind = Kind::kBool;
    constant.integer = yes;
    return NewConst(name.at, constant);
  }
  for (Signature* macro : macros_) {
    if (name.text == "caller") macro->uses_caller = true;
    if (name.text == "varargs") macro->uses_varargs = true;
    if (name.text == "kwargs") macro->uses_kwargs = true;
  }
  Name* node = New<Name>(name.at);
  node->id = ast_.IdOf(name.text);
  Read(node->id);
  return node;
}

Result<Expr*> Parser::ParseNumber() {
  const LexToken number = Take();
  ConstantData constant;
  if (number.type == TokenType::kFloat) {
    const std::optional<double> d = ParseFloat(number.text);
    if (!d) return Wrong("a number is not written as numbers are", number.at);
    constant.kind = Kind::kFloat;
    constant.number = *d;
  } else {
    bool too_large = false;
    const std::optional<int64_t> i = ParseInt(number.text, 0, &too_large);
    if (!i) return Wrong("an integer does not fit in 64 bits", number.at);
    constant.kind = Kind::kInt;
    constant.integer = *i;
  }
  return NewConst(number.at, constant);
}

// Strings that follow each other are one.
Result<Expr*> Parser::ParseStrings() {
  const uint32_t at = token().at;
  ConstantData constant;
  constant.kind = Kind::kString;
  while (token().type == TokenType::kString) {
    Result<std::string> text = Unquote(token().text);
    if (!text.ok()) return Wrong(text.error().message);
    constant.text += *text;
    Take();
  }
  return NewConst(at, std::move(constant));
}

Result<Expr*> Parser::ParseList() {
  const uint32_t at = Take().at;
  std::vector<Expr*> items;
  while (!IsOperator("]")) {
    if (!items.empty()) {
      SNUG_TRY(ExpectOperator(","));
      if (IsOperator("]")) break;
    }
    SNUG_ASSIGN(Expr * item, ParseExpression());
    items.push_back(item);
  }
  Take();
  return NewSeveral(Expr::Type::kList, at, std::move(items));
}

Result<Expr*> Parser::ParseDict() {
  const uint32_t at = Take().at;
  std::vector<Expr*> items;
  while (!IsOperator("}")) {
    if (!items.empty()) {
      SNUG_TRY(ExpectOperator(","));
      if (IsOperator("}")) break;
    }
    SNUG_ASSIGN(Expr * key, ParseExpression());
    SNUG_TRY(ExpectOperator(":"));
    SNUG_ASSIGN(Expr * value, ParseExpression());
    items.push_back(key);
    items.push_back(value);
  }
  Take();
  return NewSeveral(Expr::Type::kDict, at, std::move(items));
}

Result<Expr*> Parser::ParsePostfix(Expr* e) {
  while (true) {
    if (IsOperator(".") || IsOperator("[")) {
      SNUG_ASSIGN(e, ParseSubscript(e));
    } else if (IsOperator("(")) {
      SNUG_ASSIGN(e, ParseCall(e));
    } else {
      return e;
    }
  }
}

Result<Expr*> Parser::ParseFilters(Expr* e) {
  while (true) {
    if (SkipOperator("|")) {
      SNUG_ASSIGN(e, ParseFilter(e));
    } else if (SkipName("is")) {
      SNUG_ASSIGN(e, ParseTest(e));
    } else if (IsOperator("(")) {
      SNUG_ASSIGN(e, ParseCall(e));
    } else {
      return e;
    }
  }
}

Result<std::string> Parser::ParseDottedName() {
  SNUG_ASSIGN(const std::string_view first, ExpectName());
  std::string name(first);
  while (SkipOperator(".")) {
    SNUG_ASSIGN(const std::string_view part, ExpectName());
    name += '.';
    name += part;
  }
  return name;
}

// After the "|".
Result<Expr*> Parser::ParseFilter(Expr* input) {
  FilterExpr* node = New<FilterExpr>(token().at);
  node->input = input;
  SNUG_ASSIGN(node->name, ParseDottedName());
  node->filter = FindFilter(node->name);
  if (node->filter == nullptr && !soft_) {
    return Wrong(fmt::format("there is no filter '{}'", node->name), node->at);
  }
  if (IsOperator("(")) {
    SNUG_ASSIGN(node->args, ParseArgs());
  }
  return node;
}

// After the "is".
Result<Expr*> Parser::ParseTest(Expr* input) {
  const uint32_t at = token().at;
  const bool negated = SkipName("not");
  TestExpr* node = New<TestExpr>(token().at);
  node->input = input;
  SNUG_ASSIGN(node->name, ParseDottedName());
  node->test = FindTest(node->name);
  if (node->test == nullptr && !soft_) {
    return Wrong(fmt::format("there is no test '{}'", node->name), node->at);
  }
  const TokenType next = token().type;
  if (IsOperator("(")) {
    SNUG_ASSIGN(node->args, ParseArgs());
  } else if ((next == TokenType::kName && !IsName("else") && !IsName("or") && !IsName("and")) ||
             next == TokenType::kString || next == TokenType::kInteger ||
             next == TokenType::kFloat || IsOperator("[") || IsOperator("{")) {
    if (IsName("is")) return Wrong("tests cannot be chained with 'is'");
    const Nest nest(*this);
    if (nest.too_deep()) return TooDeep();
    SNUG_ASSIGN(Expr * arg, ParsePrimary());
    SNUG_ASSIGN(arg, ParsePostfix(arg));
    node->args.positional.push_back(arg);
  }
  if (!negated) return node;
  return NewSeveral(Expr::Type::kNot, at, {node});
}

Result<Expr*> Parser::ParseSubscript(Expr* object) {
  const LexToken begin = Take();
  if (begin.text == ".") {
    if (token().type == TokenType::kName) {
      Attribute* node = New<Attribute>(begin.at);
      node->object = object;
      node->name = std::string(Take().text);
      return node;
    }
    if (token().type != TokenType::kInteger) return Unexpected("a name or a number");
    SNUG_ASSIGN(Expr * index, ParseNumber());
    auto* node = New<Subscript>(begin.at, Expr::Type::kItem);
    node->object = object;
    node->index[0] = index;
    return node;
  }
  std::vector<Expr*> indices;
  while (!IsOperator("]")) {
    if (!indices.empty()) SNUG_TRY(ExpectOperator(","));
    Expr* index = nullptr;
    if (!IsOperator(":")) {
      SNUG_ASSIGN(index, ParseExpression());
    }
    if (IsOperator(":")) {
      if (!indices.empty()) return Wrong("a slice cannot be one of several indices");
      return ParseSlice(object, begin.at, index);
    }
    indices.push_back(index);
  }
  Take();
  auto* node = New<Subscript>(begin.at, Expr::Type::kItem);
  node->object = object;
  node->index[0] =
      indices.size() == 1 ? indices[0] : NewSeveral(Expr::Type::kTuple, begin.at, indices);
  return node;
}

// After the start, at the first ":".
Result<Expr*> Parser::ParseSlice(Expr* object, uint32_t at, Expr* start) {
  auto* node = New<Subscript>(at, Expr::Type::kSlice);
  node->object = object;
  node->index[0] = start;
  for (size_t i = 1; i < 3 && SkipOperator(":"); ++i) {
    if (IsOperator(":") || IsOperator("]")) continue;
    SNUG_ASSIGN(node->index[i], ParseExpression());
  }
  SNUG_TRY(ExpectOperator("]"));
  return node;
}

Result<CallArgs> Parser::ParseArgs() {
  const uint32_t at = Take().at;
  CallArgs args;
  const auto wrong = [&] { return Wrong("the arguments of a call are in a wrong order", at); };
  bool comma = false;
  while (!IsOperator(")")) {
    if (comma) {
      SNUG_TRY(ExpectOperator(","));
      if (IsOperator(")")) break;
    }
    comma = true;
    if (SkipOperator("*")) {
      if (args.more_positional != nullptr || args.more_named != nullptr) return wrong();
      SNUG_ASSIGN(args.more_positional, ParseExpression());
    } else if (SkipOperator("**")) {
      if (args.more_named != nullptr) return wrong();
      SNUG_ASSIGN(args.more_named, ParseExpression());
    } else if (token().type == TokenType::kName && Ahead(1).type == TokenType::kOperator &&
               Ahead(1).text == "=") {
      if (args.more_named != nullptr) return wrong();
      std::string name(Take().text);
      Take();
      SNUG_ASSIGN(Expr * value, ParseExpression());
      args.named.emplace_back(std::move(name), value);
    } else {
      if (args.more_positional != nullptr || args.more_named != nullptr || !args.named.empty()) {
        return wrong();
      }
      SNUG_ASSIGN(Expr * value, ParseExpression());
      args.positional.push_back(value);
    }
  }
  Take();
  for (size_t i = 0; i < args.named.size(); ++i) {
    if (i >= 255) return Wrong("a call has more than 255 named arguments", at);
    for (size_t j = 0; j < i; ++j) {
      if (args.named[i].first == args.named[j].first) {
        return Wrong(fmt::format("argument '{}' is given twice", args.named[i].first), at);
      }
    }
  }
  return args;
}

Result<Expr*> Parser::ParseCall(Expr* callee) {
  Call* node = New<Call>(token().at);
  node->callee = callee;
  SNUG_ASSIGN(node->args, ParseArgs());
  return node;
}

}  // namespace snug::jinja
