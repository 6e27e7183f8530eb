"""MLServer's custom runtime for one ONNX file; `uri` in model-settings.json is the model's folder."""

# ruff: noqa: ANN001, ANN201, B905 - runs in a peer's environment, in the style of its examples

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
from session import Session


class OnnxModel(MLModel):
    """One model."""

    async def load(self):
        """Open the session."""
        self.session = Session(self.settings.parameters.uri)
        return True

    async def predict(self, payload):
        """Run a request, or the several that the adaptive batcher has joined."""
        batch = NumpyCodec.decode_input(payload.inputs[0]).astype("float32", copy=False)
        values = self.session.run(batch.reshape(-1, *self.session.shape))
        outputs = [NumpyCodec.encode_output(name, value) for name, value in zip(self.session.outputs, values)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
