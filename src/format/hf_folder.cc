#include "format/hf_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>

#include "format/hf_config.h"
#include "format/hf_tokenizer.h"
#include "format/safetensors.h"

namespace snug {
namespace {

constexpr uint64_t kMaxShards = 512, kMaxExperts = 1 << 12, kMaxLayer = 1 << 16;
constexpr char kSingle[] = "model.safetensors", kIndex[] = "model.safetensors.index.json";

Result<DType> StoredTypeOf(const HfFolder& folder, const std::string& file,
                           const SafetensorInfo& t) {
  if (t.dtype == "F32") return DType::kF32;
  if (t.dtype == "F16") return DType::kF16;
  if (t.dtype == "BF16") return DType::kBF16;
  return folder.Bad(file, fmt::format("tensor {} is {}, which is not supported", t.name, t.dtype),
                    "supported are F32, F16 and BF16");
}

// Adds the tensors of all files under GGUF's names.
class FolderTensors {
 public:
  FolderTensors(HfFolder& folder, const HfArchitecture& architecture, bool tied)
      : folder_(folder), architecture_(architecture), tied_(tied) {}

  Status Add(const std::string& file, uint32_t index, const SafetensorInfo& t) {
    // Models that also see, and heads of encoders, put the language model under a name of its own.
    constexpr std::pair<std::string_view, std::string_view> kPrefixes[] = {
        {"model.language_model.", "model."}, {"language_model.", ""}, {"bert.", ""}};
    std::string name = t.name;
    for (const auto& [from, to] : kPrefixes)
      if (name.starts_with(from)) name.replace(0, from.size(), to);
    if (HfIgnores(name)) return {};
    const HfPattern pattern = MakeHfPattern(name);
    bool known = false;
    for (const auto& table : architecture_.tensors) {
      for (const HfTensor& rule : table) {
        if (rule.name != pattern.text) continue;
        known = true;
        if (tied_ && rule.gguf == "output.weight") continue;
        SNUG_TRY(AddAs(file, index, t, rule, pattern.numbers));
      }
    }
    if (known) return {};
    return folder_.Bad(file, fmt::format("tensor {} is unknown to architecture {}", t.name,
                                         architecture_.model_type));
  }

  Status Finish() {
    for (auto& [name, experts] : stacks_) SNUG_TRY(AddStack(name, experts));
    return {};
  }

 private:
  using Stack = std::map<uint64_t, TensorInfo>;  // by expert

  Status AddAs(const std::string& file, uint32_t index, const SafetensorInfo& t,
               const HfTensor& rule, const std::vector<uint64_t>& numbers) {
    SNUG_ASSIGN(const DType stored, StoredTypeOf(folder_, file, t));
    TensorInfo info;
    for (size_t i = 0, n = 0; i < rule.gguf.size(); ++i) {
      if (rule.gguf[i] != '#') {
        info.name += rule.gguf[i];
        continue;
      }
      if (n >= numbers.size() || numbers[n] > kMaxLayer)
        return folder_.Bad(file, fmt::format("tensor {} is of an impossible layer", t.name));
      info.name += std::to_string(numbers[n++]);
    }
    info.file = index;
    info.offset = t.offset;
    info.bytes = t.bytes;
    SNUG_TRY(Shape(file, t, rule.view, &info));
    View(rule.view, stored, &info);
    if (rule.view.rows != nullptr) SNUG_TRY(ChooseRows(file, t, rule.view, stored, &info));
    if (numbers.size() < 2) return folder_.Add(std::move(info));
    if (info.n_dims != 2 || numbers[1] >= kMaxExperts)
      return folder_.Bad(file, fmt::format("tensor {} is no matrix of an expert", t.name));
    const std::string name = info.name;
    if (!stacks_[name].emplace(numbers[1], std::move(info)).second)
      return folder_.Bad(file, fmt::format("tensor {} appears twice", t.name));
    return {};
  }

  Error UnexpectedShape(const std::string& file, const SafetensorInfo& t) const {
    return folder_.Bad(file, fmt::format("tensor {} has the unexpected shape [{}]", t.name,
                                         fmt::join(t.shape.begin(), t.shape.end(), ", ")));
  }

  // Dimensions as GGUF has them: innermost first, without those of one value between others, which
  // convolutions have.
  Status Shape(const std::string& file, const SafetensorInfo& t, const HfView& view,
               TensorInfo* info) {
    std::vector<uint64_t> dims(t.shape.rbegin(), t.shape.rend());
    for (size_t i = 1; i + 1 < dims.size();) {
      if (dims[i] == 1) {
        dims.erase(dims.begin() + static_cast<ptrdiff_t>(i));
      } else {
        ++i;
      }
    }
    const bool empty = std::find(dims.begin(), dims.end(), 0) != dims.end();
    if (dims.empty() || dims.size() > 4 || empty || dims[0] % view.parts != 0 ||
        (view.transposed && dims.size() < 2)) {
      return UnexpectedShape(file, t);
    }
    dims[0] /= view.parts;
    if (view.transposed) std::swap(dims[0], dims[1]);
    if (view.column && dims.size() == 1) dims.insert(dims.begin(), 1);
    std::copy(dims.begin(), dims.end(), info->dims.begin());
    info->n_dims = static_cast<int>(dims.size());
    return {};
  }

  // Where its values lie, unless that is simply one after another.
  void View(const HfView& view, DType stored, TensorInfo* info) {
    const bool as_stored = view.value == TensorSource::Value::kAsStored;
    info->type = as_stored ? stored : DType::kF32;
    if (as_stored && !view.transposed && view.parts == 1) return;
    auto source = std::make_shared<TensorSource>();
    source->type = stored;
    source->value = view.value;
    const uint64_t element = Info(stored).bytes;
    TensorSource::Run run{info->file, info->offset + view.part * element, info->rows(),
                          info->cols() * element * view.parts, element * view.parts};
    if (view.transposed) {
      run.rows = info->dims[1];
      run.row_step = element * view.parts;
      run.col_step = info->dims[1] * element * view.parts;
      const uint64_t slices = info->dims[2] * info->dims[3];
      for (uint64_t s = 0; s < slices; ++s) {
        source->runs.push_back(run);
        run.offset += run.col_step * info->dims[0];
      }
    } else {
      source->runs.push_back(run);
    }
    info->source = std::move(source);
  }

  // Takes some rows, in another order.
  Status ChooseRows(const std::string& file, const SafetensorInfo& t, const HfView& view,
                    DType stored, TensorInfo* info) {
    SNUG_ASSIGN(const HfRows rows, view.rows(folder_));
    if (info->n_dims != 2 || info->rows() != rows.of) {
      return UnexpectedShape(file, t);
    }
    auto source = std::make_shared<TensorSource>();
    source->type = stored;
    const uint64_t row = RowBytes(stored, info->cols());
    uint64_t count = 0;
    for (const HfRows::Run& r : rows.runs) {
      source->runs.push_back(
          {info->file, info->offset + r.first * row, r.count, row, Info(stored).bytes});
      count += r.count;
    }
    info->dims[1] = count;
    info->bytes = count * row;
    info->source = std::move(source);
    return {};
  }

  Status AddStack(const std::string& name, Stack& experts) {
    TensorInfo whole = experts.begin()->second;
    auto source = std::make_shared<TensorSource>();
    source->type = whole.type;
    whole.bytes = 0;
    for (uint64_t e = 0; e < experts.size(); ++e) {
      const auto it = experts.find(e);
      if (it == experts.end()) {
        return folder_.Bad("", fmt::format("expert {} of {} has no weights, but expert {} has", e,
                                           name, experts.rbegin()->first));
      }
      const TensorInfo& t = it->second;
      if (t.dims != whole.dims || t.type != whole.type)
        return folder_.Bad("", fmt::format("experts of {} differ in shape or type", name));
      const uint64_t row = RowBytes(t.type, t.cols());
      source->runs.push_back({t.file, t.offset, t.rows(), row, Info(t.type).bytes});
      whole.bytes += t.bytes;
    }
    whole.dims[2] = experts.size();
    whole.n_dims = 3;
    whole.source = std::move(source);
    return folder_.Add(std::move(whole));
  }

  HfFolder& folder_;
  const HfArchitecture& architecture_;
  const bool tied_;
  std::map<std::string, Stack> stacks_;
};

// Which file holds which tensor, as the index has it; empty without an index.
Result<std::map<std::string, std::string>> ReadIndex(const HfFolder& folder) {
  std::map<std::string, std::string> map;
  SNUG_ASSIGN(const Json index, ReadHfJson(folder, kIndex, false));
  if (index.empty()) return map;
  const auto weights = index.find("weight_map");
  if (weights == index.end() || !weights->is_object() || weights->empty())
    return folder.Bad(kIndex, "weight_map is missing or no object");
  for (const auto& [name, file] : weights->items()) {
    const bool plain = file.is_string() && !file.get<std::string>().empty() &&
                       file.get<std::string>().find('/') == std::string::npos &&
                       file.get<std::string>()[0] != '.';
    if (!plain)
      return folder.Bad(kIndex, fmt::format("weight_map['{}'] is no file of the folder", name));
    map.emplace(name, file.get<std::string>());
  }
  return map;
}

Status ReadTensors(HfFolder& folder, const HfArchitecture& architecture, bool tied) {
  std::error_code error;
  SNUG_ASSIGN(auto index, ReadIndex(folder));
  std::set<std::string> files;
  for (const auto& [name, file] : index) files.insert(file);
  if (files.empty()) {
    if (!std::filesystem::exists(folder.path() + "/" + kSingle, error)) {
      return folder.Bad("", fmt::format("holds neither {} nor {}", kSingle, kIndex),
                        "weights in other formats (pytorch_model.bin) are not read");
    }
    files.insert(kSingle);
  }
  if (files.size() > kMaxShards)
    return folder.Bad(kIndex, fmt::format("names {} files", files.size()));
  FolderTensors tensors(folder, architecture, tied);
  for (const std::string& name : files) {
    SNUG_ASSIGN(SafetensorsFile file, SafetensorsFile::Open(folder.path() + "/" + name));
    SNUG_ASSIGN(File data, File::Open(folder.path() + "/" + name));
    const uint32_t i = folder.AddFile(folder.path() + "/" + name, std::move(data));
    for (const SafetensorInfo& t : file.tensors()) {
      const auto it = index.find(t.name);
      // A shard may repeat what the index finds in another.
      if (it != index.end() && it->second != name) continue;
      if (it != index.end()) index.erase(it);
      SNUG_TRY(tensors.Add(name, i, t));
    }
  }
  if (!index.empty()) {
    return folder.Bad(index.begin()->second,
                      fmt::format("tensor {} is missing", index.begin()->first),
                      "the download is incomplete");
  }
  return tensors.Finish();
}

}  // namespace

Result<HfFolder> HfFolder::Open(const std::string& path) {
  HfFolder folder;
  folder.path_ = path;
  while (folder.path_.size() > 1 && folder.path_.back() == '/') folder.path_.pop_back();
  std::error_code error;
  if (!std::filesystem::exists(folder.path_ + "/config.json", error)) {
    return folder.Bad("", "is a folder without a config.json",
                      "give a GGUF file or a Hugging Face folder");
  }
  SNUG_ASSIGN(const Json whole, ReadHfJson(folder, "config.json", true));
  Json config = TextConfig(whole);
  SNUG_ASSIGN(const auto type, HfString(folder, config, "model_type"));
  if (!type) return folder.Bad("config.json", "model_type is missing");
  const HfArchitecture* architecture = FindHfArchitecture(*type);
  if (architecture == nullptr) {
    std::vector<std::string_view> known;
    for (const HfArchitecture& a : HfArchitectures()) known.push_back(a.model_type);
    Error e = folder.Bad("config.json", fmt::format("model_type '{}' is not supported", *type),
                         fmt::format("supported: {}", fmt::join(known, ", ")));
    e.values.emplace_back("architecture", *type);
    return e;
  }
  // What a configuration leaves out has its family's value.
  const Json defaults = Json::parse(architecture->defaults);
  for (const auto& [key, value] : defaults.items())
    if (!config.contains(key)) config[key] = value;
  SNUG_TRY(ReadHfConfig(folder, config, *architecture));
  SNUG_TRY(ReadHfTokenizer(folder, config));
  SNUG_ASSIGN(const auto tied, HfBool(folder, config, "tie_word_embeddings"));
  SNUG_TRY(ReadTensors(folder, *architecture, tied.value_or(false)));
  if (tied && !*tied && folder.Find("output.weight") == nullptr)
    return folder.Bad("", "lm_head.weight is missing, and the embeddings are not tied");
  return folder;
}

Status HfFolder::ForEachString(std::string_view key,
                               const std::function<void(uint64_t, std::string_view)>& fn) const {
  const auto it = arrays_.find(key);
  if (it == arrays_.end() || it->second.index() != 0) return Missing(key, "an array of strings");
  const auto& texts = *std::get_if<0>(&it->second);
  for (uint64_t i = 0; i < texts.size(); ++i) fn(i, texts[i]);
  return {};
}

Status HfFolder::ReadArray(std::string_view key, float* dst) const {
  const auto it = arrays_.find(key);
  if (it == arrays_.end() || it->second.index() != 1) return Missing(key, "an array of numbers");
  const auto& numbers = *std::get_if<1>(&it->second);
  std::transform(numbers.begin(), numbers.end(), dst,
                 [](int32_t v) { return static_cast<float>(v); });
  return {};
}

Status HfFolder::ReadArray(std::string_view key, int32_t* dst) const {
  const auto it = arrays_.find(key);
  if (it == arrays_.end() || it->second.index() != 1) return Missing(key, "an array of numbers");
  const auto& numbers = *std::get_if<1>(&it->second);
  std::copy(numbers.begin(), numbers.end(), dst);
  return {};
}

Status HfFolder::ReadArrayBytes(std::string_view key, uint8_t* dst) const {
  const auto it = arrays_.find(key);
  if (it == arrays_.end()) return Missing(key, "an array");
  if (const auto* numbers = std::get_if<1>(&it->second)) {
    std::memcpy(dst, numbers->data(), numbers->size() * sizeof(int32_t));
    return {};
  }
  for (const std::string& text : *std::get_if<0>(&it->second)) {
    const uint64_t n = text.size();
    std::memcpy(dst, &n, 8);
    std::memcpy(dst + 8, text.data(), n);
    dst += 8 + n;
  }
  return {};
}

void HfFolder::SetUint(const std::string& key, uint64_t value) {
  AddValue(key, {value <= UINT32_MAX ? GgufType::kU32 : GgufType::kU64, value, {}, {}});
}
void HfFolder::SetFloat(const std::string& key, double value) {
  AddValue(key, {GgufType::kF32, std::bit_cast<uint64_t>(value), {}, {}});
}
void HfFolder::SetBool(const std::string& key, bool value) {
  AddValue(key, {GgufType::kBool, value, {}, {}});
}
void HfFolder::SetString(const std::string& key, std::string value) {
  AddValue(key, {GgufType::kString, 0, std::move(value), {}});
}

void HfFolder::SetArray(const std::string& key, GgufArray array, ArrayValues values) {
  if (AddValue(key, {GgufType::kArray, 0, {}, array})) arrays_.emplace(key, std::move(values));
}
void HfFolder::SetStrings(const std::string& key, std::vector<std::string> values) {
  GgufArray array{GgufType::kString, values.size(), 0, 0};
  for (const std::string& v : values) array.bytes += 8 + v.size();
  SetArray(key, array, std::move(values));
}
void HfFolder::SetInts(const std::string& key, std::vector<int32_t> values) {
  const GgufArray array{GgufType::kI32, values.size(), 0, 4 * values.size()};
  SetArray(key, array, std::move(values));
}

void HfFolder::AddComputed(const std::string& name, std::vector<float> values) {
  TensorInfo info;
  info.name = name;
  info.dims[0] = values.size();
  info.n_dims = 1;
  info.bytes = values.size() * sizeof(float);
  auto source = std::make_shared<TensorSource>();
  source->values = std::move(values);
  info.source = std::move(source);
  AddTensor(std::move(info));
}

Status HfFolder::Add(TensorInfo tensor) {
  const std::string name = tensor.name;
  if (AddTensor(std::move(tensor))) return {};
  return Bad("", fmt::format("has two tensors that are {}", name));
}

uint32_t HfFolder::AddFile(const std::string& path, File file) {
  paths_.push_back(path);
  files_.push_back(std::move(file));
  return static_cast<uint32_t>(files_.size() - 1);
}

void HfFolder::SetTokenizer(std::optional<std::string> json, std::optional<std::string> model) {
  tokenizer_json_ = std::move(json);
  tokenizer_model_ = std::move(model);
}

void HfFolder::SetSpecialText(const std::string& name, std::string text) {
  special_texts_[name] = std::move(text);
}

Error HfFolder::Bad(std::string_view file, const std::string& message, std::string next) const {
  const std::string path = file.empty() ? path_ : fmt::format("{}/{}", path_, file);
  return MakeError(Code::kBadFile, fmt::format("{}: {}", path, message), std::move(next),
                   {{"path", path}});
}

}  // namespace snug
