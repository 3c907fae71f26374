#include "mimi/weights.h"

namespace csm {

MimiWeights MimiWeights::request(Weights& weights, const MimiConfig& c, bool encoder) {
    MimiWeights w;
    w.semantic = Rvq::request(weights, "mimi.quantizer.semantic",
                              {c.hidden, c.codebook_dim, c.codebook_size, c.semantic_codebooks}, encoder);
    w.acoustic = Rvq::request(weights, "mimi.quantizer.acoustic",
                              {c.hidden, c.codebook_dim, c.codebook_size, c.acoustic_codebooks()}, encoder);
    w.upsample = DepthwiseUpsample::request(weights, "mimi.upsample.conv", c.hidden, c.resample_stride);
    w.decoder_transformer = TransformerWeights::request(weights, "mimi.decoder_transformer", c.transformer);
    w.decoder = Seanet::request_decoder(weights, c);
    w.has_encoder = encoder;
    if (encoder) {
        w.encoder = Seanet::request_encoder(weights, c);
        w.encoder_transformer =
            TransformerWeights::request(weights, "mimi.encoder_transformer", c.transformer);
        Conv::Shape shape{c.hidden, c.hidden, 2 * c.resample_stride, c.resample_stride};
        shape.bias = false;
        w.downsample = Conv::request(weights, "mimi.downsample.conv", shape);
    }
    return w;
}

size_t MimiWeights::max_tensors(const MimiConfig& c) {
    const size_t convolutions = 2 + c.ratios.size() * (1 + 2 * static_cast<size_t>(c.residual_layers));
    return 16 + 2 * static_cast<size_t>(c.codebooks) +
           2 * (2 * convolutions + 16 * static_cast<size_t>(c.transformer.layers));
}

}  // namespace csm
