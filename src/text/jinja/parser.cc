#include "text/jinja/parser.h"

#include <algorithm>
#include <utility>

namespace snug::jinja {
namespace {

constexpr uint64_t kMaxSource = 8u << 20;  // bytes of a template

// Sets a variable until the end of the scope.
template <class T>
class Within {
 public:
  Within(T* variable, T value) : variable_(variable), before_(std::exchange(*variable, value)) {}
  ~Within() { *variable_ = before_; }
  Within(const Within&) = delete;
  Within& operator=(const Within&) = delete;

 private:
  T* variable_;
  T before_;
};

bool CanAssign(std::string_view name) {
  for (const std::string_view c : {"true", "false", "none", "True", "False", "None"}) {
    if (name == c) return false;
  }
  return true;
}

}  // namespace

Result<std::unique_ptr<Ast>> Parse(std::string_view source, const TemplateLimits& limits) {
  if (source.size() > kMaxSource) {
    return MakeError(Code::kBadInput, fmt::format("a template of {} bytes, more than {}",
                                                  source.size(), kMaxSource));
  }
  auto ast = std::make_unique<Ast>();
  for (const std::string_view name : kReservedNames) ast->IdOf(name);
  ast->source = NormalizeNewlines(source);
  SNUG_ASSIGN(std::vector<LexToken> tokens, Tokenize(ast->source));
  SNUG_TRY(Parser(*ast, std::move(tokens), limits).Run());
  return ast;
}

Status Parser::Run() {
  NewFrame(&ast_.body);
  SNUG_ASSIGN(ast_.body, Statements({}));
  FindUnset();
  return {};
}

bool Parser::SkipName(std::string_view name) {
  if (!IsName(name)) return false;
  Take();
  return true;
}

bool Parser::SkipOperator(std::string_view op) {
  if (!IsOperator(op)) return false;
  Take();
  return true;
}

Error Parser::Wrong(std::string message, uint32_t at) const {
  return At(MakeError(Code::kBadInput, std::move(message)), ast_.source, at);
}

Error Parser::TooDeep() const {
  return Wrong(fmt::format("nested more than {} levels deep", limits_.depth));
}

Error Parser::Unexpected(std::string_view expected) const {
  std::string got;
  switch (token().type) {
    case TokenType::kEnd:
      got = "the end of the template";
      break;
    case TokenType::kBlockEnd:
    case TokenType::kVariableEnd:
      got = "the end of the tag";
      break;
    default:
      got = fmt::format("'{}'", token().text.substr(0, 40));
  }
  return Wrong(fmt::format("expected {}, got {}", expected, got));
}

Status Parser::ExpectOperator(std::string_view op) {
  if (SkipOperator(op)) return {};
  return Unexpected(fmt::format("'{}'", op));
}

Result<std::string_view> Parser::ExpectName() {
  if (token().type != TokenType::kName) return Unexpected("a name");
  return Take().text;
}

Status Parser::ExpectBlockEnd() {
  if (token().type != TokenType::kBlockEnd) return Unexpected("the end of the tag");
  Take();
  return {};
}

Result<Body> Parser::Statements(Ends ends) {
  const Nest nest(*this);
  if (nest.too_deep()) return TooDeep();
  Body body;
  Output* output = nullptr;  // takes text and expressions that follow each other
  while (token().type != TokenType::kEnd) {
    if (token().type == TokenType::kBlockBegin) {
      Take();
      output = nullptr;
      for (const std::string_view end : ends) {
        if (IsName(end)) return body;
      }
      SNUG_ASSIGN(Statement * statement, ParseStatement());
      body.statements.push_back(statement);
      SNUG_TRY(ExpectBlockEnd());
      continue;
    }
    if (output == nullptr) {
      output = New<Output>(token().at);
      body.statements.push_back(output);
    }
    if (token().type == TokenType::kData) {
      output->pieces.push_back({std::string(Take().text), nullptr});
      continue;
    }
    Take();  // {{
    SNUG_ASSIGN(Expr * e, ParseTuple(true, "", false));
    output->pieces.push_back({{}, e});
    if (token().type != TokenType::kVariableEnd) return Unexpected("the end of the tag");
    Take();
  }
  if (ends.size() == 0) return body;
  return Unexpected(fmt::format("{{% {} %}}", *(ends.end() - 1)));
}

Result<Body> Parser::BodyUntil(std::string_view end) {
  SkipOperator(":");
  SNUG_TRY(ExpectBlockEnd());
  SNUG_ASSIGN(Body body, Statements({end}));
  Take();
  return body;
}

Result<Statement*> Parser::ParseStatement() {
  const LexToken tag = token();
  if (tag.type != TokenType::kName) return Unexpected("the name of a statement");
  const std::string_view name = tag.text;
  if (name == "if") return ParseIf();
  if (name == "for") return ParseFor();
  if (name == "set") return ParseSet();
  if (name == "with") return ParseWith();
  if (name == "macro") return ParseMacro();
  if (name == "call") return ParseCallBlock();
  if (name == "filter") return ParseFilterBlock();
  if (name == "block") return ParseNamedBlock();
  if (name == "print") return ParsePrint();
  if (name == "generation") return ParseScope("endgeneration");
  if (name == "autoescape") return ParseAutoescape();
  if (name == "include" || name == "import" || name == "from" || name == "extends") {
    return ParseRefused();
  }
  if (name == "break" || name == "continue") {
    if (loops_ == 0) return Wrong(fmt::format("'{}' outside of a loop", name));
    Take();
    const bool leaves = name == "break";
    return New<Statement>(tag.at, leaves ? Statement::Type::kBreak : Statement::Type::kContinue);
  }
  return Wrong(fmt::format("there is no statement '{}' here", name.substr(0, 40)));
}

Result<Statement*> Parser::ParseIf() {
  If* node = New<If>(Take().at);
  const Within soft(&soft_, true);
  while (true) {
    If::Branch branch;
    SNUG_ASSIGN(branch.condition, ParseTuple(false, "", false));
    SkipOperator(":");
    SNUG_TRY(ExpectBlockEnd());
    SNUG_ASSIGN(branch.body, Statements({"elif", "else", "endif"}));
    node->branches.push_back(std::move(branch));
    const std::string_view end = Take().text;
    if (end == "endif") return node;
    if (end == "elif") continue;
    If::Branch otherwise;
    SNUG_ASSIGN(otherwise.body, BodyUntil("endif"));
    node->branches.push_back(std::move(otherwise));
    return node;
  }
}

Result<Statement*> Parser::ParseFor() {
  For* node = New<For>(Take().at);
  SNUG_ASSIGN(node->target, ParseTarget(false, "in"));
  if (!SkipName("in")) return Unexpected("'in'");
  SNUG_ASSIGN(node->over, ParseTuple(false, "recursive", false));
  if (SkipName("if")) {
    const InFrame frame(*this, nullptr);
    Assigned(*node->target, true);
    SNUG_ASSIGN(node->condition, ParseExpression());
  }
  node->recursive = SkipName("recursive");
  SkipOperator(":");
  SNUG_TRY(ExpectBlockEnd());
  {
    const InFrame frame(*this, &node->body);
    const Within loops(&loops_, loops_ + 1);
    Assigned(*node->target, true);
    SNUG_ASSIGN(node->body, Statements({"else", "endfor"}));
  }
  if (Take().text == "endfor") return node;
  const InFrame frame(*this, &node->otherwise);
  SNUG_ASSIGN(node->otherwise, BodyUntil("endfor"));
  return node;
}

Result<Statement*> Parser::ParseSet() {
  const uint32_t at = Take().at;
  SNUG_ASSIGN(Target * target, ParseTarget(true, ""));
  if (SkipOperator("=")) {
    Set* node = New<Set>(at);
    node->target = target;
    SNUG_ASSIGN(node->value, ParseTuple(true, "", false));
    Assigned(*target, false);
    return node;
  }
  auto* node = New<BlockStatement>(at, Statement::Type::kSetBlock);
  node->target = target;
  Assigned(*target, false);
  while (SkipOperator("|")) {
    SNUG_ASSIGN(node->filter, ParseFilter(node->filter));
  }
  const InFrame frame(*this, &node->body);
  SNUG_ASSIGN(node->body, BodyUntil("endset"));
  return node;
}

Result<Statement*> Parser::ParseWith() {
  With* node = New<With>(Take().at);
  while (token().type != TokenType::kBlockEnd && !IsOperator(":")) {
    if (!node->values.empty()) SNUG_TRY(ExpectOperator(","));
    SNUG_ASSIGN(Target * target, ParseTarget(false, ""));
    SNUG_TRY(ExpectOperator("="));
    SNUG_ASSIGN(Expr * value, ParseExpression());
    node->values.emplace_back(target, value);
  }
  const InFrame frame(*this, &node->body);
  for (const auto& [target, value] : node->values) Assigned(*target, true);
  SNUG_ASSIGN(node->body, BodyUntil("endwith"));
  return node;
}

Result<uint32_t> Parser::ParseAssignedName() {
  SNUG_ASSIGN(const std::string_view name, ExpectName());
  if (!CanAssign(name)) return Wrong(fmt::format("'{}' cannot be assigned to", name));
  return ast_.IdOf(name);
}

Status Parser::ParseSignature(Signature* signature) {
  SNUG_TRY(ExpectOperator("("));
  while (!IsOperator(")")) {
    if (!signature->parameters.empty()) SNUG_TRY(ExpectOperator(","));
    Signature::Parameter parameter;
    SNUG_ASSIGN(parameter.id, ParseAssignedName());
    Read(parameter.id);
    if (SkipOperator("=")) {
      SNUG_ASSIGN(parameter.fallback, ParseExpression());
    } else if (!signature->parameters.empty() && signature->parameters.back().fallback != nullptr) {
      return Wrong("a parameter without a default follows one that has one");
    }
    for (const Signature::Parameter& other : signature->parameters) {
      if (other.id == parameter.id) return Wrong("a macro has a parameter twice");
    }
    if (signature->parameters.size() >= 255) return Wrong("a macro has more than 255 parameters");
    signature->parameters.push_back(parameter);
  }
  return ExpectOperator(")");
}

Status Parser::ParseMacroBody(Signature* signature, std::string_view end) {
  const Within loops(&loops_, 0);
  macros_.push_back(signature);
  Result<Body> body = BodyUntil(end);
  macros_.pop_back();
  SNUG_ASSIGN(signature->body, std::move(body));
  return {};
}

Result<Statement*> Parser::ParseMacro() {
  Macro* node = New<Macro>(Take().at);
  node->signature.name = std::string(token().text);
  SNUG_ASSIGN(node->id, ParseAssignedName());
  frames_[frame_].set_first.emplace(node->id, !soft_);
  const InFrame frame(*this, &node->signature.body);
  SNUG_TRY(ParseSignature(&node->signature));
  SNUG_TRY(ParseMacroBody(&node->signature, "endmacro"));
  return node;
}

Result<Statement*> Parser::ParseCallBlock() {
  CallBlock* node = New<CallBlock>(Take().at);
  node->signature.name = "caller";
  const size_t own_frame = NewFrame(&node->signature.body);
  if (IsOperator("(")) {
    const InFrame frame(*this, own_frame);
    SNUG_TRY(ParseSignature(&node->signature));
  }
  const uint32_t at = token().at;
  SNUG_ASSIGN(Expr * call, ParseExpression());
  if (call->type != Expr::Type::kCall) return Wrong("expected a call", at);
  node->call = static_cast<Call*>(call);
  const InFrame frame(*this, own_frame);
  SNUG_TRY(ParseMacroBody(&node->signature, "endcall"));
  return node;
}

Result<Statement*> Parser::ParseFilterBlock() {
  auto* node = New<BlockStatement>(Take().at, Statement::Type::kFilterBlock);
  do {
    SNUG_ASSIGN(node->filter, ParseFilter(node->filter));
  } while (SkipOperator("|"));
  const InFrame frame(*this, &node->body);
  SNUG_ASSIGN(node->body, BodyUntil("endfilter"));
  return node;
}

Result<Statement*> Parser::ParseNamedBlock() {
  auto* node = New<BlockStatement>(Take().at, Statement::Type::kBlock);
  const uint32_t at = token().at;
  SNUG_ASSIGN(const std::string_view name, ExpectName());
  if (std::find(blocks_.begin(), blocks_.end(), name) != blocks_.end()) {
    return Wrong("a block of this name exists already", at);
  }
  constexpr size_t kMaxBlocks = 1000;  // keeps the search above short
  if (blocks_.size() == kMaxBlocks) return Wrong("too many named blocks", at);
  blocks_.emplace_back(name);
  SkipName("scoped");
  SkipName("required");
  const InFrame frame(*this, &node->body, true);
  const Within loops(&loops_, 0);
  SNUG_ASSIGN(node->body, BodyUntil("endblock"));
  SkipName(name);
  return node;
}

Result<Statement*> Parser::ParsePrint() {
  Output* node = New<Output>(Take().at);
  while (token().type != TokenType::kBlockEnd) {
    if (!node->pieces.empty()) SNUG_TRY(ExpectOperator(","));
    SNUG_ASSIGN(Expr * e, ParseExpression());
    node->pieces.push_back({{}, e});
  }
  return node;
}

Result<Statement*> Parser::ParseScope(std::string_view end) {
  auto* node = New<BlockStatement>(Take().at, Statement::Type::kScope);
  const InFrame frame(*this, &node->body);
  const Within loops(&loops_, 0);
  SNUG_ASSIGN(node->body, BodyUntil(end));
  return node;
}

Result<Statement*> Parser::ParseAutoescape() {
  auto* node = New<BlockStatement>(Take().at, Statement::Type::kScope);
  if (!SkipName("false") && !SkipName("False")) {
    return Wrong("autoescape can only be false: chat templates are not HTML");
  }
  const InFrame frame(*this, &node->body);
  SNUG_ASSIGN(node->body, BodyUntil("endautoescape"));
  return node;
}

Result<Statement*> Parser::ParseRefused() {
  Refused* node = New<Refused>(token().at);
  node->what = fmt::format("'{}' needs other templates, and there are none", Take().text);
  while (token().type != TokenType::kBlockEnd && token().type != TokenType::kEnd) Take();
  return node;
}

Result<Target*> Parser::ParseTargetPart(bool namespaces) {
  const Nest nest(*this);
  if (nest.too_deep()) return TooDeep();
  const uint32_t at = token().at;
  if (SkipOperator("(")) {
    SNUG_ASSIGN(Target * inner, ParseTarget(namespaces, ""));
    SNUG_TRY(ExpectOperator(")"));
    return inner;
  }
  Target* target = New<Target>(at);
  const std::string_view name = token().text;
  SNUG_ASSIGN(target->id, ParseAssignedName());
  if (namespaces && SkipOperator(".")) {
    target->type = Target::Type::kNamespace;
    SNUG_ASSIGN(const std::string_view attribute, ExpectName());
    target->attribute = std::string(attribute);
  } else if (!namespaces && name == "loop") {
    return Wrong("'loop' cannot be the variable of a loop", at);
  }
  return target;
}

// One target, or several separated by commas, which make a tuple.
Result<Target*> Parser::ParseTarget(bool namespaces, std::string_view end_name) {
  const uint32_t at = token().at;
  std::vector<Target*> parts;
  bool tuple = false;
  while (!IsOperator("=") && !IsOperator(")") && token().type != TokenType::kBlockEnd &&
         (end_name.empty() || !IsName(end_name))) {
    SNUG_ASSIGN(Target * part, ParseTargetPart(namespaces));
    parts.push_back(part);
    if (!SkipOperator(",")) break;
    tuple = true;
  }
  if (parts.empty()) return Unexpected("a name to assign to");
  if (!tuple) return parts[0];
  Target* target = New<Target>(at);
  target->type = Target::Type::kTuple;
  target->parts = std::move(parts);
  return target;
}

}  // namespace snug::jinja
