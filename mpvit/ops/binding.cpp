// Python names for mmcv's CUDA functions of deformable attention, declared as in mmcv's
// ops/csrc/pytorch/cuda/ms_deform_attn_cuda.cu, with which this file is compiled (build.py).
#include <torch/extension.h>

at::Tensor ms_deform_attn_cuda_forward(
    const at::Tensor &value, const at::Tensor &spatial_shapes, const at::Tensor &level_start_index,
    const at::Tensor &sampling_loc, const at::Tensor &attn_weight, const int im2col_step);

void ms_deform_attn_cuda_backward(
    const at::Tensor &value, const at::Tensor &spatial_shapes, const at::Tensor &level_start_index,
    const at::Tensor &sampling_loc, const at::Tensor &attn_weight, const at::Tensor &grad_output,
    at::Tensor &grad_value, at::Tensor &grad_sampling_loc, at::Tensor &grad_attn_weight,
    const int im2col_step);

namespace {

at::Tensor forward(at::Tensor value, at::Tensor shapes, at::Tensor starts, at::Tensor locations,
                   at::Tensor weights, int im2col_step) {
  at::DeviceGuard guard(value.device());
  return ms_deform_attn_cuda_forward(value, shapes, starts, locations, weights, im2col_step);
}

void backward(at::Tensor value, at::Tensor shapes, at::Tensor starts, at::Tensor locations,
              at::Tensor weights, at::Tensor grad_output, at::Tensor grad_value,
              at::Tensor grad_locations, at::Tensor grad_weights, int im2col_step) {
  at::DeviceGuard guard(value.device());
  ms_deform_attn_cuda_backward(value, shapes, starts, locations, weights, grad_output, grad_value,
                               grad_locations, grad_weights, im2col_step);
}

}  // namespace

// The names and the order of arguments are those of mmcv's complete extension.
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("ms_deform_attn_forward", &forward);
  m.def("ms_deform_attn_backward", &backward);
}
