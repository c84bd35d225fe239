"""Views: the table of inferences as others lay theirs out, and what was used, by the hour.

Databricks has published three layouts of inference tables and two of usage tables, for each of
which dashboards and notebooks exist; asked here by those columns, they find them with the same
types. What we know nothing of is null, and nothing is ever sampled.

Layouts, by their places at docs.databricks.com/aws/en:
    inferences_gateway  ai-gateway/inference-tables (Unity AI Gateway)
    inferences_legacy   machine-learning/model-serving/inference-tables
    inferences_serving  ai-gateway/inference-tables-serving-endpoints
    usage_gateway       ai-gateway/usage-tracking: system.ai_gateway.usage, what we know of it
    usage_serving       ai-gateway/configure-ai-gateway-endpoints: system.serving.endpoint_usage
"""

from __future__ import annotations

# Rows from before the column have no status, or 0.
STATUS = """CAST(CASE
    WHEN status > 0 THEN status
    WHEN outcome = 'COMPLETED' THEN 200
    WHEN outcome = 'CANCELLED' THEN 499
    WHEN outcome = 'REFUSED' THEN 400
    ELSE 500
END AS INTEGER)"""
# A caller may use one id for several requests; rows from before the column have only that.
ROW = "coalesce(row_id, request_id)"
REQUESTER = "coalesce(nullif(principal, ''), tenant)"
SERVED = "coalesce(entity, connection, route)"
NO_ERRORS = "CAST([] AS VARCHAR[])"
DESTINATION = """CASE
    WHEN connection IS NOT NULL THEN 'EXTERNAL_MODEL'
    WHEN route IS NOT NULL THEN 'CUSTOM_MODEL'
END"""
# The order of tags says nothing; sorting a single one would take as long as all the rest.
SORTED_TAGS = """CASE
    WHEN cardinality(tags) > 1 THEN map_from_entries(list_sort(map_entries(tags)))
    ELSE tags
END"""

# By name: one SELECT over the table of inferences.
VIEWS: dict[str, str] = {
    "inferences_gateway": f"""
        SELECT
            request_id,
            {ROW} AS invocation_id,
            tags AS request_tags,
            requested_at AS event_time,
            {STATUS} AS status_code,
            CAST(1 AS DOUBLE) AS sampling_fraction,
            elapsed_ms AS latency_ms,
            first_token_ms AS time_to_first_byte_ms,
            request,
            response,
            {DESTINATION} AS destination_type,
            {SERVED} AS destination_name,
            model AS destination_model,
            {NO_ERRORS} AS logging_error_codes,
            {REQUESTER} AS requester,
            '1' AS schema_version
        FROM inferences
    """,
    "inferences_legacy": f"""
        SELECT
            {ROW} AS databricks_request_id,
            request_id AS client_request_id,
            date,
            epoch_ms(requested_at) AS timestamp_ms,
            {STATUS} AS status_code,
            CAST(1 AS DOUBLE) AS sampling_fraction,
            elapsed_ms AS execution_time_ms,
            request,
            response,
            MAP {{
                'endpoint_name': endpoint,
                'model_name': coalesce(split_part(entity, '@', 1), model),
                'model_version': nullif(split_part(entity, '@', 2), '')
            }} AS request_metadata
        FROM inferences
    """,
    "inferences_serving": f"""
        SELECT
            date AS request_date,
            {ROW} AS databricks_request_id,
            request_id AS client_request_id,
            requested_at AS request_time,
            {STATUS} AS status_code,
            CAST(1 AS DOUBLE) AS sampling_fraction,
            elapsed_ms AS execution_duration_ms,
            request,
            response,
            {SERVED} AS served_entity_id,
            {NO_ERRORS} AS logging_error_codes,
            {REQUESTER} AS requester
        FROM inferences
    """,
    "usage": f"""
        SELECT
            date_trunc('hour', requested_at) AS hour,
            tenant,
            principal,
            endpoint,
            model,
            {SORTED_TAGS} AS tags,
            count(*) AS requests,
            count(*) FILTER (outcome IN ('FAILED', 'REFUSED')) AS errors,
            CAST(sum(prompt_tokens) AS BIGINT) AS prompt_tokens,
            CAST(sum(completion_tokens) AS BIGINT) AS completion_tokens,
            CAST(sum(cached_tokens) AS BIGINT) AS cached_tokens,
            CAST(sum(reasoning_tokens) AS BIGINT) AS reasoning_tokens,
            CAST(coalesce(sum(saved_tokens), 0) AS BIGINT) AS saved_tokens,
            sum(cost) AS cost,
            count(*) FILTER (cost IS NULL) AS unpriced
        FROM inferences
        GROUP BY ALL
    """,
    "usage_gateway": f"""
        SELECT
            tenant AS account_id,
            CAST(NULL AS VARCHAR) AS workspace_id,
            request_id,
            1 AS schema_version,
            endpoint AS endpoint_id,
            endpoint AS endpoint_name,
            CAST(MAP {{}} AS MAP(VARCHAR, VARCHAR)) AS endpoint_tags,
            requested_at AS event_time,
            elapsed_ms AS latency_ms,
            first_token_ms AS time_to_first_byte_ms,
            {DESTINATION} AS destination_type,
            {SERVED} AS destination_name,
            {SERVED} AS destination_id,
            model AS destination_model,
            {REQUESTER} AS requester,
            tags AS request_tags,
            prompt_tokens AS input_tokens,
            completion_tokens AS output_tokens,
            prompt_tokens + completion_tokens AS total_tokens,
            {{
                'cache_read_input_tokens': cached_tokens,
                'cache_creation_input_tokens': coalesce(cache_write_tokens, 0),
                'output_reasoning_tokens': reasoning_tokens
            }} AS token_details,
            'application/json' AS response_content_type,
            {STATUS} AS status_code,
            {ROW} AS invocation_id
        FROM inferences
    """,
    "usage_serving": f"""
        SELECT
            tenant AS account_id,
            CAST(NULL AS VARCHAR) AS workspace_id,
            request_id AS client_request_id,
            {ROW} AS databricks_request_id,
            {REQUESTER} AS requester,
            {STATUS} AS status_code,
            requested_at AS request_time,
            prompt_tokens AS input_token_count,
            completion_tokens AS output_token_count,
            CAST(NULL AS BIGINT) AS input_character_count,
            CAST(NULL AS BIGINT) AS output_character_count,
            tags AS usage_context,
            coalesce(streamed, false) AS request_streaming,
            {SERVED} AS served_entity_id
        FROM inferences
    """,
}
