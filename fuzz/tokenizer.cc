// Text of any bytes, through each kind of tokenizer: tokens are of the vocabulary, and they decode
// to the text.
#include "text/tokenizer.h"

#include <fmt/format.h>

#include "format/gguf.h"
#include "format/gguf_builder.h"
#include "fuzz.h"
#include "tiny_model.h"

namespace snug {
namespace {

std::string ByteLevel(const std::string& pre) {
  const auto tokens = testing::TinyModel::Vocabulary();
  std::vector<int32_t> types(tokens.size(), 1);
  types.back() = 3;
  return testing::GgufBuilder()
      .Header(3, 0, 5)
      .String("tokenizer.ggml.model", "gpt2")
      .String("tokenizer.ggml.pre", pre)
      .Strings("tokenizer.ggml.tokens", tokens)
      .Ints("tokenizer.ggml.token_type", types)
      .Strings("tokenizer.ggml.merges", {"t h", "th e"})
      .bytes;
}

std::string SentencePiece() {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types = {2, 3, 3};
  for (int b = 0; b < 256; ++b) tokens.push_back(fmt::format("<0x{:02X}>", b));
  types.resize(tokens.size(), 6);
  for (const char* t : {"\xE2\x96\x81", "t", "h", "e", "th", "the", "\xE2\x96\x81the", "\xC3\xA9",
                        "\xE2\x96\x81\xE2\x96\x81", "\n\n", "<tag>"})
    tokens.emplace_back(t);
  types.resize(tokens.size(), 1);
  types.back() = 4;
  std::vector<float> scores(tokens.size());
  for (size_t i = 0; i < scores.size(); ++i) scores[i] = -static_cast<float>(i % 7);
  return testing::GgufBuilder()
      .Header(3, 0, 6)
      .String("tokenizer.ggml.model", "llama")
      .Strings("tokenizer.ggml.tokens", tokens)
      .Ints("tokenizer.ggml.token_type", types)
      .Floats("tokenizer.ggml.scores", scores)
      .U32("tokenizer.ggml.bos_token_id", 1)
      .Bool("tokenizer.ggml.add_space_prefix", false)
      .bytes;
}

std::unique_ptr<Tokenizer> Make(const std::string& bytes) {
  static Ledger ledger(64 * kMiB);
  const fuzz::MemoryFile file(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  auto gguf = GgufFile::Open(file.path());
  FUZZ_CHECK(gguf.ok());
  auto tokenizer = Tokenizer::Load(*gguf, ledger);
  FUZZ_CHECK(tokenizer.ok());
  return std::move(tokenizer).value();
}

// Bytes that no UTF-8 text has: a byte-level vocabulary need not hold them.
bool OnlyTextBytes(std::string_view text) {
  for (const char c : text) {
    const auto b = static_cast<uint8_t>(c);
    if (b >= 0xF5 || b == 0xC0 || b == 0xC1) return false;
  }
  return true;
}

void Check(const Tokenizer& tokenizer, std::string_view text, bool special) {
  std::vector<Token> tokens;
  tokenizer.Encode(text, {special, special}, &tokens);
  for (const Token t : tokens) FUZZ_CHECK(t >= 0 && t < static_cast<Token>(tokenizer.vocab_size()));
  std::string streamed;
  Utf8Stream stream;
  for (const Token t : tokens) {
    std::string piece;
    tokenizer.Decode(t, true, &piece);
    stream.Push(piece, &streamed);
  }
  stream.Finish(&streamed);
  const bool marks = text.find("\xE2\x96\x81") != text.npos;
  if (!special && !marks && OnlyTextBytes(text)) FUZZ_CHECK(tokenizer.Decode(tokens, true) == text);
}

}  // namespace
}  // namespace snug

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace snug;
  static const std::unique_ptr<Tokenizer> tokenizers[] = {
      Make(ByteLevel("gpt-2")), Make(ByteLevel("qwen2")), Make(ByteLevel("llama-bpe")),
      Make(SentencePiece())};
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const auto& t : tokenizers) {
    for (const bool special : {false, true}) Check(*t, text, special);
  }
  return 0;
}
