"""The MoMap diffusion model: codec, scene encoder, denoiser and the pipeline that joins them."""
