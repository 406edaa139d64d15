// Parses a template: a recursive descent over the tokens, as deep as the limits allow.
#pragma once

#include <unordered_map>
#include <utility>

#include "text/chat_template.h"
#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace snug::jinja {

Result<std::unique_ptr<Ast>> Parse(std::string_view source, const TemplateLimits& limits);

class Parser {
 public:
  Parser(Ast& ast, std::vector<LexToken> tokens, const TemplateLimits& limits)
      : ast_(ast), tokens_(std::move(tokens)), limits_(limits) {}
  Status Run();

 private:
  // ---- tokens
  const LexToken& token() const { return tokens_[next_]; }
  const LexToken& Ahead(size_t n) const { return tokens_[std::min(next_ + n, tokens_.size() - 1)]; }
  LexToken Take() { return next_ + 1 < tokens_.size() ? tokens_[next_++] : tokens_[next_]; }
  bool IsName(std::string_view name) const {
    return token().type == TokenType::kName && token().text == name;
  }
  bool IsOperator(std::string_view op) const {
    return token().type == TokenType::kOperator && token().text == op;
  }
  bool SkipName(std::string_view name);
  bool SkipOperator(std::string_view op);
  Status ExpectOperator(std::string_view op);
  Result<std::string_view> ExpectName();
  Status ExpectBlockEnd();
  Error Wrong(std::string message) const { return Wrong(std::move(message), token().at); }
  Error Wrong(std::string message, uint32_t at) const;
  Error Unexpected(std::string_view expected) const;

  template <class T, class... Args>
  T* New(uint32_t at, Args&&... args) {
    auto node = std::make_unique<T>(std::forward<Args>(args)...);
    node->at = at;
    T* raw = node.get();
    ast_.nodes.push_back(std::move(node));
    return raw;
  }

  // Counts nesting while it lives.
  class Nest {
   public:
    explicit Nest(Parser& p) : p_(p) { ++p_.depth_; }
    ~Nest() { --p_.depth_; }
    Nest(const Nest&) = delete;
    Nest& operator=(const Nest&) = delete;
    bool too_deep() const { return p_.depth_ > p_.limits_.depth; }

   private:
    Parser& p_;
  };
  Error TooDeep() const;

  // ---- names by scope, as jinja2 finds them before it runs a template (parser_scope.cc)
  struct Frame {
    int64_t parent = -1;
    Body* body = nullptr;
    std::unordered_map<uint32_t, bool> set_first;  // names met; whether the first time was a set
  };
  // A scope within the current one, or on its own, for the names of `body` (or of no body).
  size_t NewFrame(Body* body, bool isolated = false);
  void Read(uint32_t id) { frames_[frame_].set_first.emplace(id, false); }
  void Assigned(const Target& target, bool parameter);
  // Notes which names each scope leaves undefined; at the end.
  void FindUnset();

  // Parses within a frame while it lives.
  class InFrame {
   public:
    InFrame(Parser& p, size_t frame)
        : p_(p), frame_(std::exchange(p.frame_, frame)), soft_(std::exchange(p.soft_, false)) {}
    InFrame(Parser& p, Body* body, bool isolated = false)
        : InFrame(p, p.NewFrame(body, isolated)) {}
    ~InFrame() {
      p_.frame_ = frame_;
      p_.soft_ = soft_;
    }
    InFrame(const InFrame&) = delete;
    InFrame& operator=(const InFrame&) = delete;

   private:
    Parser& p_;
    const size_t frame_;
    const bool soft_;
  };

  // ---- statements (parser.cc)
  using Ends = std::initializer_list<std::string_view>;
  // Up to the tag that begins with one of `ends`, whose name is then the next token.
  Result<Body> Statements(Ends ends);
  // Block end, statements, and the closing tag's name.
  Result<Body> BodyUntil(std::string_view end);
  Result<Statement*> ParseStatement();
  Result<Statement*> ParseIf();
  Result<Statement*> ParseFor();
  Result<Statement*> ParseSet();
  Result<Statement*> ParseWith();
  Result<Statement*> ParseMacro();
  Result<Statement*> ParseCallBlock();
  Result<Statement*> ParseFilterBlock();
  Result<Statement*> ParseNamedBlock();
  Result<Statement*> ParsePrint();
  Result<Statement*> ParseScope(std::string_view end);
  Result<Statement*> ParseAutoescape();
  Result<Statement*> ParseRefused();
  Status ParseSignature(Signature* signature);
  Status ParseMacroBody(Signature* signature, std::string_view end);
  Result<Target*> ParseTarget(bool namespaces, std::string_view end_name);
  Result<Target*> ParseTargetPart(bool namespaces);
  Result<uint32_t> ParseAssignedName();

  // ---- expressions (parser_expression.cc)
  Result<Expr*> ParseExpression(bool conditional = true);
  Result<Expr*> ParseTuple(bool conditional, std::string_view end_name, bool parentheses);
  bool IsTupleEnd(std::string_view end_name) const;
  Result<Expr*> ParseConditional();
  Result<Expr*> ParseOr();
  Result<Expr*> ParseAnd();
  Result<Expr*> ParseNot();
  Result<Expr*> ParseCompare();
  Result<Expr*> ParseSum();
  Result<Expr*> ParseConcat();
  Result<Expr*> ParseProduct();
  Result<Expr*> ParsePower();
  Result<Expr*> ParseUnary(bool filters);
  Result<Expr*> ParsePrimary();
  Result<Expr*> ParseName();
  Result<Expr*> ParseNumber();
  Result<Expr*> ParseStrings();
  Result<Expr*> ParseList();
  Result<Expr*> ParseDict();
  Result<Expr*> ParsePostfix(Expr* e);
  Result<Expr*> ParseFilters(Expr* e);
  Result<Expr*> ParseFilter(Expr* input);
  Result<Expr*> ParseTest(Expr* input);
  Result<std::string> ParseDottedName();
  Result<Expr*> ParseSubscript(Expr* object);
  Result<Expr*> ParseSlice(Expr* object, uint32_t at, Expr* start);
  Result<CallArgs> ParseArgs();
  Result<Expr*> ParseCall(Expr* callee);
  Expr* NewConst(uint32_t at, ConstantData data);
  Expr* NewSeveral(Expr::Type type, uint32_t at, std::vector<Expr*> parts);

  Ast& ast_;
  const std::vector<LexToken> tokens_;
  const TemplateLimits limits_;
  size_t next_ = 0;
  uint32_t depth_ = 0;
  int loops_ = 0;      // around the place, within the same macro
  bool soft_ = false;  // within a branch, where an unknown filter is an error only when reached
  std::vector<Frame> frames_;
  size_t frame_ = 0;                 // the current one
  std::vector<Signature*> macros_;   // around the place
  std::vector<std::string> blocks_;  // named so far
};

}  // namespace snug::jinja
