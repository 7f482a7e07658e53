"""Names of columns that more than one folder speaks of."""

QUERY_ID = "query_id"
PASSAGE_ID = "passage_id"
QUERY = "query"
PASSAGE = "passage"
SCORE = "score"
GOLDEN_LABEL = "golden_label"
ERROR_CODE = "error_code"
ERROR_MESSAGE = "error_message"
TOKENS = "tokens"
PADDED_TOKENS = "padded_tokens"
LOAD_ID = "load_id"
CONTENT_HASH = "content_hash"
CHUNK = "chunk"
RANK = "rank"
RUN_ID = "run_id"
MODEL_VERSION = "model_version"

PAIR_KEY = (QUERY_ID, PASSAGE_ID)
PAIR = (QUERY_ID, PASSAGE_ID, QUERY, PASSAGE)
