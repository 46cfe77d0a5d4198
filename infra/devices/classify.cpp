// Classify raw pixels: classify MODEL.onnx PIXELS, a file of images as the network takes them, one after the other.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <vector>

int main(int, char** arguments) {
  Ort::Env environment(ORT_LOGGING_LEVEL_ERROR);
  Ort::Session session(environment, arguments[1], Ort::SessionOptions());
  auto shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();  // N, C, H, W
  std::ifstream file(arguments[2], std::ios::binary);
  std::vector<uint8_t> pixels(std::istreambuf_iterator<char>(file), {});
  shape[0] = pixels.size() / (shape[1] * shape[2] * shape[3]);
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto input = Ort::Value::CreateTensor<uint8_t>(memory, pixels.data(), pixels.size(), shape.data(), shape.size());
  const char *from = "pixels", *to = "logits";
  auto output = session.Run(Ort::RunOptions(), &from, &input, 1, &to, 1);
  Ort::AllocatorWithDefaultOptions allocator;
  auto names = session.GetModelMetadata().LookupCustomMetadataMapAllocated("classes", allocator);
  auto classes = nlohmann::json::parse(names.get());
  const float* logits = output[0].GetTensorData<float>();
  for (const float* row = logits; row < logits + shape[0] * classes.size(); row += classes.size())
    std::cout << classes[std::max_element(row, row + classes.size()) - row].get<std::string>() << "\n";
}
