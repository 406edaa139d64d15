// What is done to a text before it is cut into words: the steps of tokenizer.json's normalizers,
// and those of SentencePiece as GGUF metadata describes them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/charsmap.h"
#include "text/normal_forms.h"

namespace snug {

// What stands for a space in SentencePiece's pieces.
inline constexpr char kSpaceMark[] = "\u2581";

class Vocabulary;

struct NormalStep {
  enum class Kind : uint8_t {
    kForm,
    kLowercase,
    kPrepend,        // `to`, before a text that is not empty
    kReplace,        // `from` by `to`
    kReplaceSpaces,  // each run of two or more spaces by `to`
    kReplaceWhite,   // each run of white space by `to`
    kStrip,          // white space at the ends: `left`, `right`
    kStripAccents,   // every mark
    kBert,           // clean, spaces around ideographs, accents, lower case, as flagged
    kCharsmap,       // rule by rule, the longest that fits; not within tokens that `keep` finds
    kCharsmapByCharacter,  // as tokenizer.json's Precompiled: the shortest for a grapheme of up to
                           // 5 bytes, else for a character
    kNmt,                  // SentencePiece's rules for white space and controls of nmt_nfkc
    kByteAlphabet,         // bytes become the characters that byte-level vocabularies write them as
    kWords,                // llama.cpp's treatment of spaces for unigram models, as flagged
    kSpaces,               // SentencePiece's own, as flagged
  };
  Kind kind = Kind::kForm;
  NormalForm form = NormalForm::kNfc;
  std::string from = {}, to = {};
  bool left = true, right = true;
  // kBert
  bool clean = true, ideographs = true, accents = true, lower = true;
  // kWords, kSpaces: a space before the first word, or after the last; runs of spaces become one,
  // and none for kSpaces at the ends. A space is written as `to`.
  bool prefix = true, suffix = false, merge = true;

  static NormalStep Replace(std::string from, std::string to) {
    NormalStep step{Kind::kReplace};
    step.from = std::move(from);
    step.to = std::move(to);
    return step;
  }
};

// Appends `text` to out, with every `from` (not empty) in it as `to`.
void ReplaceAll(std::string_view text, std::string_view from, std::string_view to,
                std::string* out);

// Bytes that normalization may make of `bytes`: far more than any published tokenizer's, so that
// the steps of a hostile one cannot double a text again and again.
constexpr uint64_t NormalizedRoom(uint64_t bytes) { return 64 * bytes + 4096; }

// Applies the steps in their order, but for those that could leave more than `room` bytes.
// `charsmap` is what its steps walk, may be null without one; `keep` may be null. Returns `text`
// itself where there is nothing to do, else a view of one of the two buffers.
std::string_view Normalize(const std::vector<NormalStep>& steps, const Charsmap* charsmap,
                           const Vocabulary* keep, uint64_t room, std::string_view text,
                           std::string* a, std::string* b);

}  // namespace snug
