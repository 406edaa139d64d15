// What a calibration artefact was measured on: files that hold for one model's weights and rotary
// settings alone, as rankings of channels (read/channels.h), codebooks (codec/codebooks.h) and
// orders of key channels (codec/key_basis.h) do.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"
#include "base/json_reader.h"
#include "base/status.h"
#include "model/config.h"

namespace snug {

struct MeasuredOn {
  std::string weights;  // WeightsFingerprint
  std::string rotary;   // RotarySettings
  std::string text;     // a name, for people
  uint64_t tokens = 0;
};

// As files in JSON hold it, and back; false where the reader has failed.
Json MeasuredOnJson(const MeasuredOn& source);
bool ReadMeasuredOn(JsonReader& json, MeasuredOn* source);

// The settings that change a key's channels, in words.
std::string RotarySettings(const RopeConfig& rope);

// kBadFile where `path` was measured on other weights or rotary settings; `again` says how to
// measure these.
Status CheckMeasuredOn(const std::string& path, const MeasuredOn& source,
                       const std::string& weights, const RopeConfig& rope,
                       const std::string& again);

}  // namespace snug
