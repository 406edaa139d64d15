// What the files beside a Hugging Face folder's weights say of its tokenizer: ids and flags of
// special tokens, tokens that end a generation, chat templates. The vocabulary itself stays in
// tokenizer.json or tokenizer.model.
#pragma once

#include "format/hf_folder.h"

namespace snug {

// Sets tokenizer.ggml.* and tokenizer.chat_template* from generation_config.json,
// tokenizer_config.json, chat_template.jinja and, for ids, `config` and tokenizer.json's added
// tokens. tokenizer.ggml.eog_token_ids lists every token that ends a generation.
Status ReadHfTokenizer(HfFolder& folder, const Json& config);

}  // namespace snug
