# A function that writes to the bucket on schedule: the generator's sample files or, if the generator is
# off, a heartbeat.

locals {
  mock_datasource_zip    = "${local.zip_folder}/ddg_mock_datasource.zip"
  mock_datasource_name   = "${var.name}-mock-datasource"
  mock_datasource_prefix = "${var.stats_prefix}${local.scheduled_job}/"
  mock_datasource_count  = local.generates || local.beats ? 1 : 0

  generates        = var.create_bucket && var.mock_datasource_enabled
  beats            = var.create_bucket && !var.mock_datasource_enabled && var.heartbeat_schedule != null
  scheduled_job    = local.generates ? "mock-datasource" : "heartbeat"
  schedule         = local.generates ? "rate(${var.mock_interval_minutes} ${var.mock_interval_minutes == 1 ? "minute" : "minutes"})" : var.heartbeat_schedule
  schedule_seconds = try(regex("\\d+", local.schedule) * { minute = 60, hour = 3600, day = 86400 }[regex("minute|hour|day", local.schedule)], 0)
}

resource "aws_cloudwatch_log_group" "mock_datasource" {
  count = local.mock_datasource_count

  name              = "/aws/lambda/${local.mock_datasource_name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = var.tags
}

resource "aws_iam_role" "mock_datasource" {
  count = local.mock_datasource_count

  name                 = "${local.mock_datasource_name}-${local.region}" # roles are global: the region tells them apart
  assume_role_policy   = data.aws_iam_policy_document.lambda_assume.json
  path                 = var.iam_role_path
  permissions_boundary = var.permissions_boundary_arn
  tags                 = var.tags
}

resource "aws_iam_role_policy" "mock_datasource" {
  count = local.mock_datasource_count

  name   = local.mock_datasource_name
  role   = aws_iam_role.mock_datasource[0].name
  policy = data.aws_iam_policy_document.mock_datasource[0].json
}

resource "aws_lambda_function" "mock_datasource" {
  count = local.mock_datasource_count

  function_name    = local.mock_datasource_name
  description      = "Writes a ${local.generates ? "sample stats" : "heartbeat's"} file to s3://${local.bucket_name}/${local.mock_datasource_prefix}."
  role             = aws_iam_role.mock_datasource[0].arn
  runtime          = "python3.13"
  architectures    = var.architectures
  handler          = "ddg_mock_datasource.lambda_handler"
  filename         = local.mock_datasource_zip
  source_code_hash = fileexists(local.mock_datasource_zip) ? filebase64sha256(local.mock_datasource_zip) : null
  memory_size      = 256
  timeout          = 30
  tags             = var.tags

  environment {
    variables = merge(
      {
        STATS_BUCKET = aws_s3_bucket.stats[0].bucket
        STATS_PREFIX = var.stats_prefix
      },
      local.beats ? { HEARTBEAT = "true" } : {},
    )
  }

  dynamic "vpc_config" {
    for_each = local.in_vpc

    content {
      subnet_ids         = var.subnet_ids
      security_group_ids = var.security_group_ids
    }
  }

  logging_config {
    log_format            = "JSON"
    application_log_level = "INFO"
    system_log_level      = "INFO"
    log_group             = aws_cloudwatch_log_group.mock_datasource[0].name
  }

  lifecycle {
    precondition {
      condition     = fileexists(local.mock_datasource_zip)
      error_message = "${local.mock_datasource_zip} is missing: run ./zipper.sh, then apply again."
    }
  }

  # The function needs its permissions, and a file before the notification would go unnoticed.
  depends_on = [aws_iam_role_policy.mock_datasource, aws_s3_bucket_notification.stats]
}

resource "aws_lambda_function_event_invoke_config" "mock_datasource" {
  count = local.mock_datasource_count

  function_name          = aws_lambda_function.mock_datasource[0].function_name
  maximum_retry_attempts = 0 # a retry would write a second file
}

resource "aws_cloudwatch_event_rule" "mock_schedule" {
  count = local.mock_datasource_count

  name                = local.mock_datasource_name
  description         = "Runs ${aws_lambda_function.mock_datasource[0].function_name}."
  schedule_expression = local.schedule
  state               = "ENABLED" # so that an apply ends a pause
  tags                = var.tags
}

resource "aws_lambda_permission" "mock_schedule" {
  count = local.mock_datasource_count

  statement_id  = "${local.mock_datasource_name}-schedule"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.mock_datasource[0].function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.mock_schedule[0].arn
}

resource "aws_cloudwatch_event_target" "mock_schedule" {
  count = local.mock_datasource_count

  rule      = aws_cloudwatch_event_rule.mock_schedule[0].name
  target_id = local.mock_datasource_name
  arn       = aws_lambda_function.mock_datasource[0].arn

  lifecycle {
    replace_triggered_by = [aws_s3_bucket_notification.stats] # no file while the prefix changes
  }

  depends_on = [aws_lambda_permission.mock_schedule, aws_lambda_function_event_invoke_config.mock_datasource]
}
