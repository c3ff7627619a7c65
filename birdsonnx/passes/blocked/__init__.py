"""Gradient graphs in the layout that the runtime's convolutions are fastest in; `graph` is the way in.

For a network with constant weights ONNX Runtime itself rearranges activations and weights into blocks of
channels (`com.microsoft.nchwc`: `[batch, channels / block, height, width, block]`). Weights that are inputs
keep it from doing so, and convolutions then cost 1.5 x as much. Here the same is done to the graph that the
gradient builder made, with rearranged weights as further inputs (`kernels.DerivedWeight`). Measured on full
ResNet50 training, per photo and core (AVX-512):

- convolutions forward: 58 -> 47 ms; their input gradients, which become forward convolutions with
  transposed, turned kernels instead of matrix product and scatter: 72 -> 42 ms;
- ReluGrad, which the runtime does not vectorise, as a product with a mask: 17 -> 11 ms;
- the sum at a block's end and the activation inside the convolution: 5 -> 0 ms.

Every rewrite keeps the values up to the order of float32 summation.
"""
