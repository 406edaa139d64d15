// How text is cut into the words within which a model's tokens lie: steps, each of which cuts the
// pieces of the step before. The expressions are those that models were trained with, by the names
// of tokenizer.ggml.pre and by their texts in tokenizer.json, scanned by hand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace snug {

// What a step looks for in a piece. The expression of each is beside its scanner.
enum class Cut : uint8_t {
  kGpt2,
  kQwen2,
  kQwen35,
  kLlama3,
  kSeedCoder,
  kTekken,
  kGpt4o,
  kDeepSeek3,
  kDeepSeekWord,
  kDeepSeekPunctuation,
  kDeepSeekCjk,   // [一-龥ࠀ-一가-퟿]+
  kDeepSeekKana,  // [一-龥぀-ゟ゠-ヿ]+
  kLetters,       // \s?\p{L}+
  kMarks,         // \s?\p{P}+
  kTrailingSpace,
  kBloom,
  kNewline,       // [\r\n]
  kDigit,         // \p{N}
  kDigits,        // \p{N}+
  kDigits3,       // \p{N}{1,3}
  kAsciiDigits3,  // [0-9][0-9][0-9]
  kPunctuation,   // one character of \p{P} or of ASCII's punctuation
  kPunctuations,  // a run of them
  kPunctuationsLessGrave,
  kSpace,  // \s
  kWord,   // \w+|[^\w\s]+, \w as UTS 18 has it
  kText,   // CutStep::text
  // Steps that change the piece instead of cutting it:
  kMetaspaceNever,   // a space becomes CutStep::text
  kMetaspaceFirst,   // and that stands before a piece that begins the input
  kMetaspaceAlways,  // and that stands before every piece
  kPrefixSpace,      // a space before a piece that begins with none
  kByteAlphabet,     // bytes become the characters that byte-level vocabularies write them as
};
constexpr bool Changes(Cut cut) { return cut >= Cut::kMetaspaceNever; }

// What becomes of a match and of the text between matches, as tokenizer.json names it.
enum class Keep : uint8_t { kIsolated, kRemoved, kWithPrevious, kWithNext, kContiguous };

struct CutStep {
  Cut cut = Cut::kGpt2;
  Keep keep = Keep::kIsolated;
  bool invert = false;  // what the expression does not match counts as the match
  std::string text = {};
};

// A piece that starts at text[i]: a match, or what lies before the next match or the end. At least
// one byte. A scan of a whole text takes time linear in its length.
struct Piece {
  size_t bytes = 1;
  bool match = true;
};
Piece NextPiece(const CutStep& step, std::string_view text, size_t i);

// The changed piece, in *buffer.
std::string_view ChangePiece(const CutStep& step, std::string_view piece, bool begins_input,
                             std::string* buffer);

// Cuts texts by a list of steps. Holds the buffers of steps that change pieces.
class Cutter {
 public:
  explicit Cutter(const std::vector<CutStep>& steps) : steps_(steps), buffers_(steps.size()) {}

  // Calls word(piece) for each piece that the steps leave. `begins_input`: nothing of the input
  // stands before the text.
  template <class Fn>
  void Cut(std::string_view text, bool begins_input, const Fn& word) {
    Run(0, text, begins_input, word);
  }

 private:
  template <class Fn>
  void Run(size_t k, std::string_view text, bool begins_input, const Fn& word) {
    if (k == steps_.size()) return word(text);
    const CutStep& step = steps_[k];
    if (Changes(step.cut))
      return Run(k + 1, ChangePiece(step, text, begins_input, &buffers_[k]), begins_input, word);
    if (step.keep == Keep::kIsolated) {
      for (size_t i = 0; i < text.size();) {
        const size_t bytes = NextPiece(step, text, i).bytes;
        Run(k + 1, text.substr(i, bytes), begins_input && i == 0, word);
        i += bytes;
      }
      return;
    }
    // [start, i) is a piece that what follows may still join; `matched` says what it ends with.
    size_t start = 0;
    bool matched = false, open = false;
    const auto flush = [&](size_t end) {
      if (end > start)
        Run(k + 1, text.substr(start, end - start), begins_input && start == 0, word);
      start = end;
    };
    for (size_t i = 0; i < text.size();) {
      Piece piece = NextPiece(step, text, i);
      piece.match ^= step.invert;
      const bool joins = open && ((step.keep == Keep::kContiguous && piece.match == matched) ||
                                  (step.keep == Keep::kWithPrevious && piece.match && !matched) ||
                                  (step.keep == Keep::kWithNext && !piece.match && matched));
      if (!joins) flush(i);
      i += piece.bytes;
      open = true;
      matched = piece.match;
      if (step.keep == Keep::kRemoved && piece.match) start = i;
    }
    flush(text.size());
  }

  const std::vector<CutStep>& steps_;
  std::vector<std::string> buffers_;
};

// \w as UTS 18 has it: letters, marks, digits, connectors and joiners.
bool IsWordCharacter(uint32_t code_point);

// What a name in tokenizer.ggml.pre stands for.
struct NamedPreTokenizer {
  std::vector<CutStep> steps;
  bool whole_words = false;  // a word that is a token is not merged
  bool add_bos = false;      // where the file does not say
};
std::optional<NamedPreTokenizer> FindPreTokenizer(std::string_view name);
// Every known name, for messages.
std::string PreTokenizerNames();
// The name under which GGUF files have these steps, the commonest of several; nullopt without one.
std::optional<std::string> PreTokenizerName(const std::vector<CutStep>& steps, bool whole_words);
// The expression of a cut as tokenizer.json spells it; nullopt where it has none.
std::optional<std::string> ExpressionOf(Cut cut);
// The cut that an expression of tokenizer.json means; nullopt for one that is not known.
std::optional<Cut> FindExpression(std::string_view regex);
std::string DeepSeekWordExpression();  // of kDeepSeekWord

}  // namespace snug
